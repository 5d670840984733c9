package wire

// Sockets brings the descriptors of the sandbox's network, in the order of
// netns.Sockets. One that the machine cannot make (no IPv6) is missing from
// the frame and its bit is clear in Present.
type Sockets struct {
	Device  string // the kind of interface that was made
	Present uint64
	Notes   []string // conveniences left out
}

// Type implements Message.
func (*Sockets) Type() Type { return TypeSockets }
func (m *Sockets) encode(e *encoder) {
	e.string(m.Device)
	e.uint(m.Present)
	e.strings(m.Notes)
}
func (m *Sockets) decode(d *decoder) {
	m.Device = d.string()
	m.Present = d.uint()
	m.Notes = d.strings()
}

// Phase is how long a part of the start took.
type Phase struct {
	Name   string
	Micros uint64
}

// Check is one measured fact of the confirmation record.
type Check struct {
	Name, Want, Got string
	OK              bool
}

// Ready says that the interior is complete and the walls were measured.
type Ready struct {
	Phases  []Phase
	Checks  []Check
	Skipped []string // what best effort left out
	ABI     int      // of Landlock
}

// Type implements Message.
func (*Ready) Type() Type { return TypeReady }

func (m *Ready) encode(e *encoder) {
	e.uint(uint64(len(m.Phases)))
	for _, p := range m.Phases {
		e.string(p.Name)
		e.uint(p.Micros)
	}
	e.uint(uint64(len(m.Checks)))
	for _, c := range m.Checks {
		e.string(c.Name)
		e.string(c.Want)
		e.string(c.Got)
		e.bool(c.OK)
	}
	e.strings(m.Skipped)
	e.uint(uint64(m.ABI))
}

func (m *Ready) decode(d *decoder) {
	for range d.count() {
		m.Phases = append(m.Phases, Phase{d.string(), d.uint()})
	}
	for range d.count() {
		m.Checks = append(m.Checks, Check{d.string(), d.string(), d.string(), d.bool()})
	}
	m.Skipped = d.strings()
	m.ABI = int(d.uint())
}

// Spawned answers Spawn. With a terminal its master comes with the frame.
type Spawned struct {
	PID int
	// Errno and Step say why nothing was started; Errno 0 means it was.
	Errno int
	Step  string
}

// Type implements Message.
func (*Spawned) Type() Type { return TypeSpawned }

func (m *Spawned) encode(e *encoder) {
	e.uint(uint64(m.PID))
	e.uint(uint64(m.Errno))
	e.string(m.Step)
}

func (m *Spawned) decode(d *decoder) {
	m.PID = int(d.uint())
	m.Errno = int(d.uint())
	m.Step = d.string()
}

// Exited says how the process of an earlier Spawn (the frame's id) ended.
type Exited struct {
	Code   int // exit code, or 128 plus the signal
	Signal int
}

// Type implements Message.
func (*Exited) Type() Type          { return TypeExited }
func (m *Exited) encode(e *encoder) { e.uint(uint64(m.Code)); e.uint(uint64(m.Signal)) }
func (m *Exited) decode(d *decoder) { m.Code = int(d.uint()); m.Signal = int(d.uint()) }

// Process is one process as the launcher sees it.
type Process struct {
	PID, PPID    int
	Start        uint64 // clock ticks since boot
	Exe          string // path inside
	Dev, Inode   uint64
	Size         int64
	Mtime, Ctime int64 // ns
	Deleted      bool
}

// Owners answers Owner: for every holder of the socket, the process and its
// ancestors, nearest first. No holder at all means nobody was found.
type Owners struct {
	Holders [][]Process
}

// Type implements Message.
func (*Owners) Type() Type { return TypeOwners }

func (m *Owners) encode(e *encoder) {
	e.uint(uint64(len(m.Holders)))
	for _, chain := range m.Holders {
		e.uint(uint64(len(chain)))
		for _, p := range chain {
			e.uint(uint64(p.PID))
			e.uint(uint64(p.PPID))
			e.uint(p.Start)
			e.string(p.Exe)
			e.uint(p.Dev)
			e.uint(p.Inode)
			e.int(p.Size)
			e.int(p.Mtime)
			e.int(p.Ctime)
			e.bool(p.Deleted)
		}
	}
}

func (m *Owners) decode(d *decoder) {
	for range d.count() {
		var chain []Process
		for range d.count() {
			chain = append(chain, Process{
				PID: int(d.uint()), PPID: int(d.uint()), Start: d.uint(), Exe: d.string(),
				Dev: d.uint(), Inode: d.uint(), Size: d.int(), Mtime: d.int(), Ctime: d.int(), Deleted: d.bool(),
			})
		}
		m.Holders = append(m.Holders, chain)
	}
}

// Opened answers OpenExe and Dial with a descriptor, or an error number.
type Opened struct{ Errno int }

// Type implements Message.
func (*Opened) Type() Type          { return TypeOpened }
func (m *Opened) encode(e *encoder) { e.uint(uint64(m.Errno)) }
func (m *Opened) decode(d *decoder) { m.Errno = int(d.uint()) }

// Done answers Freeze.
type Done struct {
	OK     bool
	Detail string
}

// Type implements Message.
func (*Done) Type() Type          { return TypeDone }
func (m *Done) encode(e *encoder) { e.bool(m.OK); e.string(m.Detail) }
func (m *Done) decode(d *decoder) { m.OK = d.bool(); m.Detail = d.string() }

// Failed ends the start: the step by name and what the kernel said.
type Failed struct {
	Step, Text string
	Errno      int
}

// Type implements Message.
func (*Failed) Type() Type          { return TypeFailed }
func (m *Failed) encode(e *encoder) { e.string(m.Step); e.string(m.Text); e.uint(uint64(m.Errno)) }
func (m *Failed) decode(d *decoder) {
	m.Step = d.string()
	m.Text = d.string()
	m.Errno = int(d.uint())
}
