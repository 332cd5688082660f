//! What the system says of its clock.

use std::path::Path;

/// Whether systemd-timesyncd has synchronised the clock since the machine started: it makes this
/// file then (systemd-timesyncd.service(8)). Other services say nothing that can be read without
/// asking them; a clock that they keep is believed by what it does.
pub(super) fn is_synchronised() -> bool {
    Path::new("/run/systemd/timesync/synchronized").exists()
}
