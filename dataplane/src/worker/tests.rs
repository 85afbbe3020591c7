//! Workers with ports that fail, and workers whose guests want more than their share.

mod faults;
mod shares;
