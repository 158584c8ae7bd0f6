//! Doing something before the kernel's workers get a turn on this processor.
#![expect(unsafe_code, reason = "scheduling policies have no safe wrapper")]

/// Does `what`, undisturbed where the kernel lets it.
pub(crate) fn undisturbed<T>(what: impl FnOnce() -> T) -> T {
    schedule(libc::SCHED_FIFO, 1);
    let done = what();
    schedule(libc::SCHED_OTHER, 0);
    done
}

/// The calling thread's policy. Without the right to it nothing changes.
fn schedule(policy: libc::c_int, priority: libc::c_int) {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the kernel reads one sched_param, which outlives the call.
    unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_afterwards() {
        assert_eq!(undisturbed(|| 7), 7);
        // SAFETY: takes a number.
        assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_OTHER);
    }
}
