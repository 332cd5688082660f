//! What stands at the end of a command's help: how people really use it.

pub(super) const SERVE: &str = "\
Examples:
  larder serve                                 data in ./larder-data, port 5273
  larder serve --name office --data /srv/larder
  larder --config /etc/larder/larder.toml serve";

pub(super) const DISCOVER: &str = "\
Example:
  larder discover --json";

pub(super) const LOG: &str = "\
Examples:
  larder log main --since 7d
  larder log main /nix/store/…-hello-2.12";

pub(super) const FSCK: &str = "\
Examples:
  larder fsck                                  the running box
  larder fsck --rebuild-index --data /srv/larder";

pub(super) const PATH: &str = "\
Examples:
  larder path show main syd87l2rxw8cbsxmxl853h0r6pdwhwjr
  larder path rm main /nix/store/…-secret --purge";

pub(super) const GC: &str = "\
Examples:
  larder gc                                    what no path has any more
  larder gc --dry-run --target-free '20 GiB'   what would have to leave
  larder gc --cache ci --target-free '20 GiB'";

pub(super) const BACKUP: &str = "\
Examples:
  larder backup /mnt/usb/office.backup
  larder --host office backup office-$(date +%F).backup";

pub(super) const RESTORE: &str = "\
Examples:
  larder restore /mnt/usb/office.backup --data /srv/larder
  sudo -u larder larder restore office.backup --data /var/lib/larder";

pub(super) const USE: &str = "\
Examples:
  larder use main                              shows who answers, and asks
  larder use main@csm7-nbfr-cayq-ev4f-r65r-x7we-4049-e545
  sudo larder use main@csm7-…                  for everybody on this machine
  larder use main --dry-run                    shows the lines alone";

pub(super) const REMOVE: &str = "\
Example:
  larder remove main";

pub(super) const PAIR: &str = "\
Examples:
  larder pair office                           compares the device ID with you
  larder pair office --code 3f7k-92mx          and fetches a token";

pub(super) const AUTHTOKEN: &str = "\
Example:
  larder authtoken --stdin < ci.token";

pub(super) const CONFIG: &str = "\
Examples:
  larder config list
  larder config set host office
  larder config unset boxes.office";

pub(super) const GENERATE_KEYPAIR: &str = "\
Example:
  larder generate-keypair team";

pub(super) const PUSH: &str = "\
Examples:
  larder push main ./result
  nix-build | larder push main
  larder push main --dry-run /run/current-system
  nix path-info --all | larder push main       everything";

pub(super) const PIN: &str = "\
Examples:
  larder pin main v1.7 ./result
  larder pin main nightly ./result --artifact share/doc/manual.txt --keep-revisions 7
  larder pin list main
  larder pin remove main v1.7";

pub(super) const CACHE: &str = "\
Examples:
  larder cache create team --private
  larder cache set team --public
  larder cache list";

pub(super) const TOKEN: &str = "\
Examples:
  larder token create --cache main --label CI --expires 90d
  larder token create --cache main:read --pairing-code
  larder token revoke 3";

pub(super) const COMPLETIONS: &str = "\
Examples:
  larder completions bash > ~/.local/share/bash-completion/completions/larder
  larder completions zsh > ~/.zfunc/_larder    with ~/.zfunc in fpath
  larder completions fish > ~/.config/fish/completions/larder.fish";

pub(super) const MAN: &str = "\
Examples:
  larder man | man -l -
  larder man ~/.local/share/man/man1";
