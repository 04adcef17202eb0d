//! Plan a restore from records and play the plan.
#![forbid(unsafe_code)]
