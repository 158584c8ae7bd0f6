//! Two sessions in virtual time, and whatever lies between them.

mod belief;
mod delivery;
mod healing;
mod world;

use proptest::prelude::*;

use super::drill;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_script_breaks_a_session(script in prop::collection::vec(any::<u8>(), 0..1_500)) {
        drill::play(&script);
    }
}
