package trim

import "testing"

func TestOnlyCleanFileMappingsAreTrimmed(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		ok         bool
	}{
		{"text", "00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/x\n", true},
		{"constants", "00452000-00462000 r--p 00000000 08:02 173521 /usr/bin/x\n", true},
		{"writable", "00652000-00655000 rw-p 00052000 08:02 173521 /usr/bin/x\n", false},
		{"shared", "00652000-00655000 r--s 00052000 08:02 173521 /usr/bin/x\n", false},
		{"anonymous", "c000000000-c000400000 r--p 00000000 00:00 0 \n", false},
		{"kernel", "7ffd3000-7ffd5000 r-xp 00000000 00:00 0 [vdso]\n", false},
		{"backwards", "00452000-00400000 r-xp 00000000 08:02 173521 /usr/bin/x\n", false},
		{"garbage", "x", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, ok := cleanFileMapping(tt.line); ok != tt.ok {
				t.Errorf("cleanFileMapping = %v, want %v", ok, tt.ok)
			}
		})
	}
}

func TestRelocatedMappingsStay(t *testing.T) {
	got := clean("00400000-00401000 r--p 00000000 08:02 1 /x\nSize: 4 kB\nAnonymous:         4 kB\n" +
		"00402000-00403000 r-xp 00000000 08:02 1 /x\nSize: 4 kB\nAnonymous:         0 kB\n" +
		"00404000-00405000 rw-p 00000000 08:02 1 /x\nAnonymous:         0 kB\n")
	if len(got) != 1 || got[0].from != 0x402000 {
		t.Errorf("clean = %x", got)
	}
}

func TestOnceDoesNoHarm(t *testing.T) {
	Once()
	Once()
}
