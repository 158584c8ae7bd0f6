//! The known word that a mistyped one was probably meant to be.

/// The nearest of `known`, when one is near enough to be meant.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    known
        .filter(|known| known.len() <= LONGEST)
        .map(|known| (edits(word, known), known))
        .filter(|(edits, known)| *edits <= (known.chars().count() / 3).max(1))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, known)| known)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words, case ignored.
fn edits(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let known = ["name", "port", "weight", "scheduler", "address"];
        let meant = |word| nearest(word, known.into_iter());
        assert_eq!(meant("wieght"), Some("weight"));
        assert_eq!(meant("sheduler"), Some("scheduler"));
        assert_eq!(meant("Port"), Some("port"));
        assert_eq!(meant("adress"), Some("address"));
        assert_eq!(meant("vip"), None);
        assert_eq!(meant(""), None);
        assert_eq!(meant(&"w".repeat(1_000_000)), None);
    }

    #[test]
    fn counts_edits() {
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("abc", "acb"), 1);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
