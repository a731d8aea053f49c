//! The CNI edge: what the runtime hands over (environment, standard input), and what it gets back (standard output).
//!
//! [`Incoming::read`] is the entry point. It checks everything that can be checked before anything is written; what it
//! returns needs only to be carried out.

mod arguments;
mod environment;
mod error;
mod netns;
mod previous_result;
mod request;
mod result;
mod version;

pub use self::arguments::{Arguments, ArgumentsError, Pod};
pub use self::environment::{Command, Environment, EnvironmentError, VARIABLES, Variable};
pub use self::error::{CniError, ErrorCode, ErrorObject};
pub use self::netns::{NamespaceError, refuse_own_namespace};
pub use self::previous_result::{PreviousAddress, PreviousResult, PreviousResultError};
pub(crate) use self::request::load_for_add;
pub use self::request::{
    AddRequest, Attachment, CheckRequest, CollectRequest, DeleteRequest, Incoming, Request, StatusRequest,
    ValidAttachment,
};
pub use self::result::{AddResult, ResultAddress, version_reply};
pub use self::version::{SpecVersion, VersionError};
