//! What a reload does to virtual routers.

use std::sync::Arc;

use crate::vrrp::settings::Settings;

/// Whether running virtual routers become others without a restart. Both have the same ids for pools.
pub(in crate::control) fn takes_over(running: &[Arc<Settings>], wanted: &[Arc<Settings>]) -> bool {
    running == wanted
}
