//! Module aliases are patterns as in `fnmatch(3)`: `*`, `?` and `[a-z]`.

/// Whether all of `text` is what `pattern` describes. Takes time in the product of their lengths.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and up to where it has swallowed.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match step(&pattern[p..], text[t]) {
            Step::Star => {
                star = Some((p + 1, t));
                p += 1;
            }
            Step::One(width) => {
                p += width;
                t += 1;
            }
            Step::No => {
                let Some((after, swallowed)) = star else { return false };
                star = Some((after, swallowed + 1));
                p = after;
                t = swallowed + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

enum Step {
    Star,
    /// It fits; that many bytes of the pattern are used up.
    One(usize),
    No,
}

fn step(pattern: &[u8], byte: u8) -> Step {
    match pattern {
        [b'*', ..] => Step::Star,
        [b'?', ..] => Step::One(1),
        [b'[', rest @ ..] => match rest.iter().position(|end| *end == b']') {
            Some(end) if in_set(&rest[..end], byte) => Step::One(end + 2),
            Some(_) => Step::No,
            None if byte == b'[' => Step::One(1),
            None => Step::No,
        },
        [literal, ..] if *literal == byte => Step::One(1),
        _ => Step::No,
    }
}

fn in_set(set: &[u8], byte: u8) -> bool {
    match set {
        [from, b'-', to, rest @ ..] => (*from..=*to).contains(&byte) || in_set(rest, byte),
        [one, rest @ ..] => *one == byte || in_set(rest, byte),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn aliases_match_as_fnmatch_does() {
        for (pattern, text, expected) in [
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("virtio:d00000001v*", "virtio:d00000002v00001AF4", false),
            (
                "pci:v00001AF4d*sv*sd*bc*sc*i*",
                "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00",
                true,
            ),
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", "pci:v000015ADd000007B0sv", false),
            ("acpi*:PNP0C0C:*", "acpi:PNP0C0C:", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("x[0-9a]*", "x7y", true),
            ("x[0-9a]*", "xay", true),
            ("x[0-9a]*", "xby", false),
            ("*b*b", "abab", true),
            ("", "", true),
            ("*", "", true),
            ("", "a", false),
            ("[", "[", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_end_in_time() {
        let text = "a".repeat(4_000);
        assert!(!matches(&format!("{}b", "a*".repeat(50)), &text));
    }
}
