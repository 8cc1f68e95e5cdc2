//! What the machine has not enough of: memory, open files, room on the disk, time to sync it. What can go on does, what
//! cannot is refused by name, and all is well again once there is enough.

mod descriptors;
mod disk_full;
mod memory;
mod slow_disk;
