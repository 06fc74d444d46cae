//! The pages, one file for each route. Each loads what it shows in the leaf that shows it.

pub mod not_found;
pub mod session;
pub mod sessions;
pub mod upload;

pub use not_found::NotFoundPage;
pub use session::SessionPage;
pub use sessions::SessionsPage;
pub use upload::UploadPage;
