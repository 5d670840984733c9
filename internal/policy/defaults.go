package policy

// Restrictive returns the policy of a sandbox that was given none and whose
// image has none: the working directory and a place for temporary files may
// be written, the system may be read, and nothing may be reached.
func Restrictive() *Document {
	return &Document{
		Source: "the restrictive default",
		Filesystem: &Filesystem{
			IncludeWorkdir: true,
			ReadOnly:       []string{"/bin", "/usr", "/lib", "/proc", "/dev/urandom", "/etc", "/var/log"},
			ReadWrite:      []string{"/tmp", "/dev/null"},
		},
		Landlock: &Landlock{Compatibility: BestEffort},
	}
}

// RunDefault returns the policy of `run` without --policy: the caller's
// current directory may be written, the system is what the driver mounts
// read-only, and nothing may be reached.
func RunDefault() *Document {
	return &Document{
		Source: "the default of run",
		Filesystem: &Filesystem{
			IncludeWorkdir: true,
			ReadOnly:       []string{"/bin", "/sbin", "/usr", "/lib", "/lib64", "/opt", "/etc", "/proc", "/dev/urandom", "/dev/random", "/dev/zero"},
			ReadWrite:      []string{"/tmp", "/dev/null", "/dev/tty", "/dev/pts", "/dev/shm", "/dev/full"},
		},
		Landlock: &Landlock{Compatibility: BestEffort},
	}
}
