//! When a link begins to carry frames: it is up again, or the first frame came by it. What was asked
//! before went nowhere, and need not be waited for.

use crate::addr::LinkId;

/// What is known of each link.
#[derive(Debug)]
pub(super) struct Awake {
    links: Vec<Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    works: bool,
    /// Frames that had come in when it came up; `None`: more have come since.
    quiet_at: Option<u64>,
}

impl Awake {
    /// So many links, all up, by which nothing has come yet.
    pub(super) fn new(links: usize) -> Self {
        Self { links: vec![Known { works: true, quiet_at: Some(0) }; links] }
    }

    /// Whether `link`, which works now or does not and has had so many frames come in, has just come up
    /// or is heard for the first time since.
    pub(super) fn wakes(&mut self, link: LinkId, works: bool, frames_in: u64) -> bool {
        let Some(known) = self.links.get_mut(link.index()) else { return false };
        let worked = std::mem::replace(&mut known.works, works);
        let is_up_again = works && !worked;
        if is_up_again {
            known.quiet_at = Some(frames_in);
        }
        let is_heard = works && known.quiet_at.take_if(|before| frames_in > *before).is_some();
        is_up_again || is_heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: LinkId = LinkId(0);

    #[test]
    fn a_link_wakes_with_its_first_frame_and_whenever_it_is_up_again() {
        let mut awake = Awake::new(1);
        assert!(!awake.wakes(LINK, true, 0), "it was asked for at the start");
        assert!(awake.wakes(LINK, true, 3));
        assert!(!awake.wakes(LINK, true, 9));
        assert!(!awake.wakes(LINK, false, 9));
        assert!(!awake.wakes(LINK, false, 9));
        assert!(awake.wakes(LINK, true, 9), "it is up");
        assert!(!awake.wakes(LINK, true, 9));
        assert!(awake.wakes(LINK, true, 10), "and heard");
        assert!(!awake.wakes(LINK, true, 11));
    }
}
