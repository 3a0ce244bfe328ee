//! Who may call, and what: tokens with roles over TCP, the peer's uid over the Unix socket, one table of
//! calls for gRPC and HTTP, how often, and over how many connections. Must never log, show or keep a token itself.

mod audit;
mod operator_token;
mod peer;
mod places;
mod private_file;
mod quota;
mod role;
mod token_file;
mod tokens;

pub use audit::{AUDIT_TARGET, Audit, AuditedSession, Way};
pub use operator_token::OperatorToken;
pub use peer::PeerRule;
pub use places::{Place, Places, Visitor};
pub use private_file::AccessError;
pub use quota::{Quota, Quotas};
pub use role::{Call, Caller, Role};
pub use token_file::{Grant, TokenError, TokenFile};
pub use tokens::{Denial, Tokens, bearer};
