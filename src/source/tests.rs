//! Sources, run against folders of the disk.
