//! The pages, one file for each route. Each page loads its own data.

pub mod identity;
pub mod models;
pub mod not_found;
pub mod open;
pub mod session;
pub mod sessions;
pub mod upload;

pub use identity::IdentityPage;
pub use models::ModelsPage;
pub use not_found::NotFoundPage;
pub use open::OpenPage;
pub use session::SessionPage;
pub use sessions::SessionsPage;
pub use upload::UploadPage;
