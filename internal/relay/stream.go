package relay

import (
	"io"
	"sync"
)

// Stream makes a byte stream out of a stream of messages. recv returns the
// bytes of the next message and io.EOF at the end; send may keep nothing of
// its argument; end is called once, by the first Close.
func Stream(recv func() ([]byte, error), send func([]byte) error, end func() error) io.ReadWriteCloser {
	return &stream{recv: recv, send: send, end: sync.OnceValue(end)}
}

type stream struct {
	recv func() ([]byte, error)
	send func([]byte) error
	end  func() error
	rest []byte // of the last message; used by the one reader only
}

func (s *stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		b, err := s.recv()
		if err != nil {
			return 0, err
		}
		s.rest = b
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *stream) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		n := min(len(p)-done, 256<<10)
		if err := s.send(p[done : done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

func (s *stream) Close() error { return s.end() }
