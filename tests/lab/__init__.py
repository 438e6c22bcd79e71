"""The lab: several stock Debian guests under QEMU, for tests and by hand."""
