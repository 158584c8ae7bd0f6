//! Why something in the outside world could not be set up.

use std::fmt;
use std::io;

use super::privilege::Privilege;

/// What went wrong with a link, a bridge or the kernel's network configuration.
#[derive(Debug)]
pub enum LinkError {
    /// The kernel said no.
    Kernel {
        /// What was attempted, as an infinitive: "set the MTU of".
        operation: String,
        /// The interface or address it was attempted on.
        subject: String,
        /// The errno.
        cause: io::Error,
        /// The kernel's own words beyond the errno, or what would help; may be empty.
        detail: String,
    },
    /// tapvs itself refuses, because it would cut the host off or break somebody else's set-up.
    Refused {
        /// The interface.
        subject: String,
        /// Why, and what would be right.
        reason: String,
    },
    /// The process may not do this at all.
    Privilege(Privilege),
}

impl LinkError {
    pub(super) fn kernel(
        operation: impl Into<String>,
        subject: impl Into<String>,
        cause: io::Error,
    ) -> Self {
        Self::Kernel {
            operation: operation.into(),
            subject: subject.into(),
            cause,
            detail: String::new(),
        }
    }

    pub(super) fn refused(subject: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Refused { subject: subject.into(), reason: reason.into() }
    }

    #[must_use]
    pub(super) fn with_detail(self, more: impl Into<String>) -> Self {
        match self {
            Self::Kernel { operation, subject, cause, .. } => {
                Self::Kernel { operation, subject, cause, detail: more.into() }
            }
            Self::Refused { .. } | Self::Privilege(_) => self,
        }
    }

    /// The errno, if the kernel gave one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Kernel { cause, .. } => cause.raw_os_error(),
            Self::Refused { .. } | Self::Privilege(_) => None,
        }
    }

    /// Whether it failed for want of permission: what a program reports with exit code 77.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Privilege(_))
            || matches!(self.raw_os_error(), Some(libc::EPERM | libc::EACCES))
    }

    /// Whether the interface (or address) it was about does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self.raw_os_error(), Some(libc::ENODEV))
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel { operation, subject, cause, detail } => {
                write!(f, "cannot {operation} {subject}: {cause}")?;
                if detail.is_empty() { Ok(()) } else { write!(f, "; {detail}") }
            }
            Self::Refused { subject, reason } => write!(f, "{subject}: {reason}"),
            Self::Privilege(missing) => missing.fmt(f),
        }
    }
}

impl std::error::Error for LinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kernel { cause, .. } => Some(cause),
            Self::Refused { .. } => None,
            Self::Privilege(missing) => Some(missing),
        }
    }
}

impl From<Privilege> for LinkError {
    fn from(missing: Privilege) -> Self {
        Self::Privilege(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_operation_interface_and_what_the_kernel_said() {
        let error = LinkError::kernel(
            "set the MTU of",
            "tapvs0",
            io::Error::from_raw_os_error(libc::EINVAL),
        )
        .with_detail("mtu greater than device maximum");
        assert_eq!(
            error.to_string(),
            "cannot set the MTU of tapvs0: Invalid argument (os error 22); \
             mtu greater than device maximum"
        );
        assert!(!error.is_permission());
    }

    #[test]
    fn permission_can_be_told_apart() {
        for (errno, expected) in
            [(libc::EPERM, true), (libc::EACCES, true), (libc::EBUSY, false), (libc::ENODEV, false)]
        {
            let error = LinkError::kernel("open", "x", io::Error::from_raw_os_error(errno));
            assert_eq!(error.is_permission(), expected, "{error}");
        }
        assert!(!LinkError::refused("eth0", "carries the default route").is_permission());
    }
}
