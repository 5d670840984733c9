package seccomp

import (
	"strconv"
	"strings"
)

// Op is how a condition compares. The zero value is no comparison and is
// refused.
type Op uint8

// The comparisons.
const (
	In     Op = iota + 1 // the masked argument is one of the values
	NotIn                // the masked argument is none of the values
	AnySet               // the argument has any bit of the mask
)

// Cond looks at the low 32 bits of one argument. All arguments we judge are
// int, unsigned int or flag words of which the kernel itself reads the low half
// only, so bits above can neither help to pass nor be needed to match:
// ioctl(TIOCSTI + 2^32) is TIOCSTI (CVE-2019-10063).
type Cond struct {
	Arg    int    // 0 to 5
	Name   string // what the argument is called, for people
	Mask   uint32 // bits looked at; 0 means all
	Op     Op
	Values []uint32
}

func is(arg int, name string, values ...uint32) Cond {
	return Cond{Arg: arg, Name: name, Op: In, Values: values}
}

func isNot(arg int, name string, values ...uint32) Cond {
	return Cond{Arg: arg, Name: name, Op: NotIn, Values: values}
}

func has(arg int, name string, mask uint32) Cond {
	return Cond{Arg: arg, Name: name, Op: AnySet, Mask: mask}
}

// masked compares only some bits of the argument.
func (c Cond) masked(mask uint32) Cond {
	c.Mask = mask
	return c
}

func (c Cond) mask() uint32 {
	if c.Mask == 0 {
		return ^uint32(0)
	}
	return c.Mask
}

func (c Cond) holds(arg uint64) bool {
	v := uint32(arg) & c.mask()
	if c.Op == AnySet {
		return v != 0
	}
	for _, w := range c.Values {
		if v == w {
			return c.Op == In
		}
	}
	return c.Op == NotIn
}

func (c Cond) valid() bool {
	if c.Arg < 0 || c.Arg > 5 {
		return false
	}
	switch c.Op {
	case AnySet:
		return c.Mask != 0 && len(c.Values) == 0
	case In, NotIn:
		for _, v := range c.Values {
			if v&^c.mask() != 0 {
				return false // could never be equal: a mistake in the table
			}
		}
		return len(c.Values) > 0
	}
	return false
}

// String returns the condition in words.
func (c Cond) String() string {
	name := c.Name
	if name == "" {
		name = "arg" + strconv.Itoa(c.Arg)
	}
	if c.Mask != 0 && c.Op != AnySet {
		name += " & 0x" + strconv.FormatUint(uint64(c.Mask), 16)
	}
	switch {
	case c.Op == AnySet:
		return name + " has any bit of 0x" + strconv.FormatUint(uint64(c.Mask), 16)
	case c.Op == In && len(c.Values) == 1:
		return name + " is " + valueText(c.Values[0])
	case c.Op == NotIn && len(c.Values) == 1:
		return name + " is not " + valueText(c.Values[0])
	}
	words := make([]string, len(c.Values))
	for i, v := range c.Values {
		words[i] = valueText(v)
	}
	if c.Op == NotIn {
		return name + " is none of " + strings.Join(words, ", ")
	}
	return name + " is one of " + strings.Join(words, ", ")
}

func valueText(v uint32) string {
	if v > 4096 {
		return "0x" + strconv.FormatUint(uint64(v), 16)
	}
	return strconv.FormatUint(uint64(v), 10)
}
