//! What must hold on a real kernel, room by room. Each check makes its own namespaces, needs
//! CAP_NET_ADMIN and CAP_SYS_ADMIN, and says in one sentence what did not hold.

pub mod links;
