package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// The watches of the two servers that have to be alike.

// listen opens a stream of watches on both sides, and forgets those before.
func (a *alike) listen() {
	for _, s := range a.sides {
		if s.heard != nil {
			s.heard.cancel()
		}
		ctx, cancel := context.WithCancel(context.Background())
		stream, err := s.watch.Watch(ctx)
		if err != nil {
			a.fault("%s: no stream of watches: %v", s.name, err)
		}
		h := &heard{stream: stream, cancel: cancel, told: map[int64][]string{}}
		s.heard = h
		go h.listen()
	}
	a.overtaken, a.ended, a.watches = false, false, 0
	// etcd tells no progress on a stream without watches.
	q := &pb.WatchCreateRequest{Key: b("nor here"), WatchId: 1 << 39}
	a.send("a watch of nothing", &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: q}})
	a.barrier()
}

func (h *heard) listen() {
	for {
		response, err := h.stream.Recv()
		h.mu.Lock()
		if err != nil {
			h.ended = err
			h.mu.Unlock()
			return
		}
		id := response.WatchId
		tell := func(format string, args ...any) { h.told[id] = append(h.told[id], fmt.Sprintf(format, args...)) }
		switch {
		case response.Created:
			tell("created at %d, canceled %v %q %d", response.Header.Revision, response.Canceled, response.CancelReason, response.CompactRevision)
		case response.Canceled:
			tell("canceled %q %d", response.CancelReason, response.CompactRevision)
		case len(response.Events) == 0:
			// Told when asked for, by the number of the stream.
			h.progress = response.Header.Revision
		}
		// Events ready at once may share a response, or not: it is their order that counts.
		for _, event := range response.Events {
			tell("%s", describe(event))
		}
		h.mu.Unlock()
	}
}

func (h *heard) take() map[int64][]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	told := map[int64][]string{}
	for id, lines := range h.told {
		told[id] = slices.Clone(lines)
	}
	return told
}

// same waits until both sides have told the same.
func (a *alike) same() {
	deadline := time.Now().Add(hurry)
	pause := time.Millisecond
	for {
		one, other := a.sides[0].heard.take(), a.sides[1].heard.take()
		if problem := unlike(one, other); problem == "" {
			// Both have told these; the next have to be alike again.
			for _, s := range a.sides {
				s.heard.forget(one)
			}
			for _, lines := range one {
				a.events += len(lines)
				// etcd keeps the number of a watch that a compaction has ended until it is
				// cancelled once more.
				a.ended = a.ended || slices.ContainsFunc(lines, func(line string) bool {
					return strings.HasPrefix(line, "canceled") && !strings.HasSuffix(line, " 0")
				})
			}
			return
		} else if time.Now().After(deadline) {
			a.fault("watches are not alike: %s (ends: %v, %v)", problem, a.sides[0].heard.ended, a.sides[1].heard.ended)
		}
		time.Sleep(pause)
		pause = min(2*pause, 50*time.Millisecond)
	}
}

func (h *heard) forget(told map[int64][]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, lines := range told {
		h.told[id] = h.told[id][len(lines):]
		if len(h.told[id]) == 0 {
			delete(h.told, id)
		}
	}
}

func unlike(one, other map[int64][]string) string {
	for id := range one {
		if _, there := other[id]; !there {
			other[id] = nil
		}
	}
	for id, lines := range other {
		if slices.Equal(lines, one[id]) {
			continue
		}
		for n := range max(len(lines), len(one[id])) {
			if n >= len(lines) || n >= len(one[id]) || lines[n] != one[id][n] {
				return fmt.Sprintf("watch %d, from the %d. on:\netcd:  %s\nquoin: %s", id, n, some(one[id], n), some(lines, n))
			}
		}
	}
	return ""
}

func some(lines []string, from int) string {
	return cut(fmt.Sprint(lines[min(from, len(lines)):min(from+3, len(lines))]))
}

func (a *alike) send(what string, request *pb.WatchRequest) {
	a.calls++
	a.last = append(a.last, what)
	for _, s := range a.sides {
		if err := s.heard.stream.Send(request); err != nil {
			a.fault("%s: %s: %v", s.name, what, err)
		}
	}
}

func (a *alike) watchSomething() {
	// What is told to a watch before it is cancelled has to be told first.
	a.same()
	if a.watches > 20 || a.ended || a.overtaken && a.chance(4) {
		a.listen()
	}
	if a.chance(3) {
		id := int64(a.Intn(8))
		a.send(fmt.Sprint("cancel ", id), &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
		a.barrier()
		return
	}
	q := &pb.WatchCreateRequest{Key: a.key(), RangeEnd: a.end(), PrevKv: a.chance(2), Fragment: a.chance(2), ProgressNotify: a.chance(4)}
	if a.chance(2) {
		q.Key, q.RangeEnd = b("\x00"), b("\x00")
	}
	if a.chance(20) {
		q.Key = nil
	}
	// An alarm would refuse the mark.
	if a.chance(2) && a.alarms <= 0 {
		q.StartRevision = a.revision - int64(a.Intn(70)) + 2
	}
	if a.chance(20) {
		q.StartRevision = -1
	}
	if a.chance(5) {
		q.WatchId = int64(a.Intn(9))
	}
	if a.chance(5) {
		q.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_FilterType(a.Intn(2))}
	}
	// The pair before an event at the compacted revision is told or not, as it happens.
	if q.StartRevision > 0 && q.StartRevision <= a.revision {
		q.PrevKv = false
	}
	a.watches++
	a.overtaken = a.overtaken || q.StartRevision != 0
	a.send("watch "+describe(q), &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: q}})
	a.barrier()
	if q.StartRevision > 0 {
		a.replayed()
	}
}

// barrier waits until both have taken what was sent: they answer a creation in its turn.
func (a *alike) barrier() {
	a.hear(&pb.WatchCreateRequest{Key: b("nothing is ever here")}, 1)
}

// replayed waits until both have told what watches that began in the past had missed: they come to
// them together with one that begins at a mark, in etcd every tenth of a second.
func (a *alike) replayed() {
	q := &pb.PutRequest{Key: b("~mark")}
	answer, ok := both(a, "mark", func(ctx context.Context, s *side) (*pb.PutResponse, error) {
		answer, err := s.kv.Put(ctx, q)
		plain(answer.GetHeader())
		return answer, err
	})
	if !ok {
		a.fault("no mark")
	}
	a.saw(answer.Header)
	a.hear(&pb.WatchCreateRequest{Key: q.Key, StartRevision: answer.Header.Revision}, 2)
}

// hear makes a watch, waits until both have told so many things about it, and ends it.
func (a *alike) hear(q *pb.WatchCreateRequest, times int) {
	a.barriers++
	id := int64(1)<<40 + a.barriers
	q.WatchId = id
	a.send("barrier", &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: q}})
	a.told(id, times)
	a.send("its end", &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
	// What is written next would be told by the one that has not ended it yet.
	a.told(id, times+1)
	a.same()
}

// told waits until both have told so many things about a watch.
func (a *alike) told(id int64, times int) {
	deadline := time.Now().Add(hurry)
	for _, s := range a.sides {
		for s.heard.of(id) < times {
			if time.Now().After(deadline) {
				a.fault("%s does not answer to a watch", s.name)
			}
			time.Sleep(200 * time.Microsecond)
		}
	}
}

// of says how much a watch has told since the streams were last compared.
func (h *heard) of(id int64) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.told[id])
}

// caughtUp waits until etcd has brought all watches up to date.
func (a *alike) caughtUp() {
	a.same()
	if a.overtaken {
		a.listen()
		return
	}
	a.askProgress()
}

// askProgress asks until both have told that everything up to now has been told.
func (a *alike) askProgress() {
	a.same()
	if a.overtaken {
		return
	}
	for _, s := range a.sides {
		s.heard.mu.Lock()
		s.heard.progress = 0
		s.heard.mu.Unlock()
	}
	request := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	deadline := time.Now().Add(hurry)
	for _, s := range a.sides {
		for n := 0; s.heard.upTo() == 0; n++ {
			if n%20 == 0 {
				check(s.heard.stream.Send(request))
			}
			if time.Now().After(deadline) {
				a.fault("%s tells no progress", s.name)
			}
			time.Sleep(time.Millisecond)
		}
	}
	a.calls++
	if one, other := a.sides[0].heard.upTo(), a.sides[1].heard.upTo(); one != other || one != a.revision {
		a.fault("progress to %d and %d at revision %d", one, other, a.revision)
	}
}

func (h *heard) upTo() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.progress
}
