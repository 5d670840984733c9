package wire

// Plan is all that the launcher is told before it starts anything.
type Plan struct {
	Hostname string
	Mounts   []byte // mounts.Plan in its own codec
	Confine  Confine
	Dir      string // working directory of the main process
}

// Confine is what every process inside is confined by. See internal/confine.
type Confine struct {
	ReadOnly  []string
	ReadWrite []string
	Hard      bool // a path that cannot be confined stops the start
	MustFail  []string
	MustOpen  []string
}

// Type implements Message.
func (*Plan) Type() Type { return TypePlan }

func (m *Plan) encode(e *encoder) {
	e.string(m.Hostname)
	e.bytes(m.Mounts)
	e.strings(m.Confine.ReadOnly)
	e.strings(m.Confine.ReadWrite)
	e.bool(m.Confine.Hard)
	e.strings(m.Confine.MustFail)
	e.strings(m.Confine.MustOpen)
	e.string(m.Dir)
}

func (m *Plan) decode(d *decoder) {
	m.Hostname = d.string()
	m.Mounts = d.bytes()
	m.Confine.ReadOnly = d.strings()
	m.Confine.ReadWrite = d.strings()
	m.Confine.Hard = d.bool()
	m.Confine.MustFail = d.strings()
	m.Confine.MustOpen = d.strings()
	m.Dir = d.string()
}

// Spawn starts a process. Without TTY its 0, 1 and 2 come with the frame.
type Spawn struct {
	Argv, Env  []string
	Dir        string
	TTY        bool
	Rows, Cols uint16
}

// Type implements Message.
func (*Spawn) Type() Type { return TypeSpawn }

func (m *Spawn) encode(e *encoder) {
	e.strings(m.Argv)
	e.strings(m.Env)
	e.string(m.Dir)
	e.bool(m.TTY)
	e.uint(uint64(m.Rows))
	e.uint(uint64(m.Cols))
}

func (m *Spawn) decode(d *decoder) {
	m.Argv = d.strings()
	m.Env = d.strings()
	m.Dir = d.string()
	m.TTY = d.bool()
	m.Rows = uint16(d.uint())
	m.Cols = uint16(d.uint())
}

// Signal goes to the process of an earlier Spawn (the frame's id), or to its
// whole process group.
type Signal struct {
	Number int
	Group  bool
}

// Type implements Message.
func (*Signal) Type() Type          { return TypeSignal }
func (m *Signal) encode(e *encoder) { e.int(int64(m.Number)); e.bool(m.Group) }
func (m *Signal) decode(d *decoder) { m.Number = int(d.int()); m.Group = d.bool() }

// Owner asks which processes hold the socket with this inode.
type Owner struct {
	Inode uint64
	Hints []int // processes to be looked at first
}

// Type implements Message.
func (*Owner) Type() Type { return TypeOwner }

func (m *Owner) encode(e *encoder) {
	e.uint(m.Inode)
	e.uint(uint64(len(m.Hints)))
	for _, h := range m.Hints {
		e.uint(uint64(h))
	}
}

func (m *Owner) decode(d *decoder) {
	m.Inode = d.uint()
	for range d.count() {
		m.Hints = append(m.Hints, int(d.uint()))
	}
}

// OpenExe asks for the executable of a process, named with its start time
// so that a re-used number is noticed.
type OpenExe struct {
	PID   int
	Start uint64
}

// Type implements Message.
func (*OpenExe) Type() Type          { return TypeOpenExe }
func (m *OpenExe) encode(e *encoder) { e.uint(uint64(m.PID)); e.uint(m.Start) }
func (m *OpenExe) decode(d *decoder) { m.PID = int(d.uint()); m.Start = d.uint() }

// Dial asks for a connection to a port on the loopback.
type Dial struct{ Port uint16 }

// Type implements Message.
func (*Dial) Type() Type          { return TypeDial }
func (m *Dial) encode(e *encoder) { e.uint(uint64(m.Port)) }
func (m *Dial) decode(d *decoder) { m.Port = uint16(d.uint()) }

// Renew asks for protections that the host lifted to be put back.
type Renew struct{}

// Type implements Message.
func (*Renew) Type() Type      { return TypeRenew }
func (*Renew) encode(*encoder) {}
func (*Renew) decode(*decoder) {}

// Freeze stops every process inside, or lets them go on.
type Freeze struct{ Thaw bool }

// Type implements Message.
func (*Freeze) Type() Type          { return TypeFreeze }
func (m *Freeze) encode(e *encoder) { e.bool(m.Thaw) }
func (m *Freeze) decode(d *decoder) { m.Thaw = d.bool() }
