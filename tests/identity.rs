//! Who a browser is, and how that is kept.
