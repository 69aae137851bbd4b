package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// The calls that are not about keys, and what takes several calls in a row.

// maintains makes a call of the Maintenance service, or one about the server as a whole.
func (a *alike) maintains() {
	switch a.Intn(8) {
	case 0:
		both(a, "defragment", func(ctx context.Context, s *side) (*pb.DefragmentResponse, error) {
			answer, err := s.maintenance.Defragment(ctx, &pb.DefragmentRequest{})
			plain(answer.GetHeader())
			return answer, err
		})
	case 1:
		// The engines' bytes are not the same; that there is an answer is.
		both(a, "hash", func(ctx context.Context, s *side) (*pb.HashResponse, error) {
			answer, err := s.maintenance.Hash(ctx, &pb.HashRequest{})
			plain(answer.GetHeader())
			if answer != nil {
				answer.Hash = 0
			}
			return answer, err
		})
	case 2:
		itself := a.chance(2)
		both(a, fmt.Sprint("move leader, to itself: ", itself), func(ctx context.Context, s *side) (*pb.MoveLeaderResponse, error) {
			target := uint64(5)
			if itself {
				answer, err := s.maintenance.Status(ctx, &pb.StatusRequest{})
				if err != nil {
					return nil, err
				}
				target = answer.Leader
			}
			answer, err := s.maintenance.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: target})
			plain(answer.GetHeader())
			return answer, err
		})
	case 3, 4:
		q := &pb.DowngradeRequest{Action: pb.DowngradeRequest_VALIDATE, Version: string(a.pick("3.6", "3.6.0", "3.6.9", "3.5.0", "3.7.0", "3.8.0", "4.6.0", "", "x", "v3.6"))}
		if a.chance(6) {
			q.Action = pb.DowngradeRequest_CANCEL
		} else if a.chance(4) && !strings.HasPrefix(q.Version, "3.6") {
			// A version that could be gone back to is refused by quoin alone: docs/compatibility.md.
			q.Action = pb.DowngradeRequest_ENABLE
		}
		both(a, "downgrade "+describe(q), func(ctx context.Context, s *side) (*pb.DowngradeResponse, error) {
			answer, err := s.maintenance.Downgrade(ctx, q)
			plain(answer.GetHeader())
			return answer, err
		})
	case 5:
		name := string(a.pick("", "", "etcdserverpb.KV"))
		both(a, "health of "+name, func(ctx context.Context, s *side) (*healthpb.HealthCheckResponse, error) {
			return s.health.Check(ctx, &healthpb.HealthCheckRequest{Service: name})
		})
	case 6:
		a.authenticates()
	default:
		if a.chance(4) {
			a.snapshots()
		}
	}
}

// authenticates makes the calls whose answer is the same while authentication is off. The others
// would change etcd, which takes users and roles all the time, and are refused by quoin:
// docs/compatibility.md.
func (a *alike) authenticates() {
	switch a.Intn(4) {
	case 0:
		both(a, "auth disable", func(ctx context.Context, s *side) (*pb.AuthDisableResponse, error) {
			answer, err := s.auth.AuthDisable(ctx, &pb.AuthDisableRequest{})
			plain(answer.GetHeader())
			return answer, err
		})
	case 1:
		both(a, "authenticate", func(ctx context.Context, s *side) (*pb.AuthenticateResponse, error) {
			answer, err := s.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "a", Password: "b"})
			plain(answer.GetHeader())
			return answer, err
		})
	case 2:
		both(a, "users", func(ctx context.Context, s *side) (*pb.AuthUserListResponse, error) {
			answer, err := s.auth.UserList(ctx, &pb.AuthUserListRequest{})
			plain(answer.GetHeader())
			return answer, err
		})
	default:
		both(a, "roles", func(ctx context.Context, s *side) (*pb.AuthRoleListResponse, error) {
			answer, err := s.auth.RoleList(ctx, &pb.AuthRoleListRequest{})
			plain(answer.GetHeader())
			return answer, err
		})
	}
}

// backup is what can be alike about the backups of two engines.
type backup struct {
	Version string
	Whole   bool
}

// snapshots takes a backup of both: it is of a size that can be restored, its checksum is right, and
// what is left counts down to nothing. quoin's says of which revision it is.
func (a *alike) snapshots() {
	both(a, "snapshot", func(ctx context.Context, s *side) (*backup, error) {
		stream, err := s.maintenance.Snapshot(ctx, &pb.SnapshotRequest{})
		if err != nil {
			return nil, err
		}
		var file []byte
		said := &backup{}
		left := uint64(1 << 62)
		for {
			part, err := stream.Recv()
			if err == io.EOF {
				break
			}
			if err != nil {
				return nil, err
			}
			if part.RemainingBytes > left {
				return nil, fmt.Errorf("%s: %d bytes are left behind %d", s.name, part.RemainingBytes, left)
			}
			left, said.Version = part.RemainingBytes, part.Version
			file = append(file, part.Blob...)
		}
		size := len(file) - sha256.Size
		if size <= 0 || size%512 != 0 || left != 0 {
			return nil, fmt.Errorf("%s: a backup of %d bytes, and %d to come", s.name, size, left)
		}
		sum := sha256.Sum256(file[:size])
		said.Whole = bytes.Equal(sum[:], file[size:])
		// docs/FORMAT.md
		if bytes.HasPrefix(file, b("quoinsnp")) {
			if revision := int64(binary.LittleEndian.Uint64(file[16:])); revision != a.revision {
				return nil, fmt.Errorf("a backup of revision %d at revision %d", revision, a.revision)
			}
		}
		return said, nil
	})
}

// locks takes a lock, or wins an election, and gives it back; sometimes somebody else waits for it.
func (a *alike) locks() {
	if a.alarms > 0 {
		return
	}
	a.episodes++
	first, second := int64(1000+2*a.episodes), int64(1001+2*a.episodes)
	for _, id := range []int64{first, second} {
		a.grant(&pb.LeaseGrantRequest{ID: id, TTL: 5000})
	}
	name := a.pick("lock", "a", "election/x", "\xff")
	if a.chance(2) {
		a.lock(name, first, second)
	} else {
		a.elect(name, first, second)
	}
	for _, id := range []int64{first, second} {
		a.revoke(id)
	}
}

// ask makes a call of the two services through the gateway: their messages are not among what
// etcd's client brings along. The calls over gRPC are in tests/conformance/elections.rs.
func ask(ctx context.Context, s *side, path string, message map[string]any) (*said, error) {
	return s.post(ctx, "/v3"+path, b(describe(message)))
}

func (a *alike) asks(path string, message map[string]any) (*said, bool) {
	answer, ok := both(a, path+" "+describe(message), func(ctx context.Context, s *side) (*said, error) {
		return ask(ctx, s, path, message)
	})
	if ok {
		a.sawText(answer.Body)
	}
	return answer, ok && answer.Status == 200
}

func (a *alike) lock(name []byte, first, second int64) {
	by := func(lease int64) map[string]any { return map[string]any{"name": name, "lease": lease} }
	held, ok := a.asks("/lock/lock", by(first))
	if !ok {
		return
	}
	var answer struct{ Key []byte }
	check(json.Unmarshal(b(held.Body), &answer))
	key := map[string]any{"key": answer.Key}
	// Who has it has it again.
	a.asks("/lock/lock", by(first))
	if a.chance(2) {
		waits := a.waiting(name, "/lock/lock", by(second))
		a.asks("/lock/unlock", key)
		waits()
	} else {
		a.asks("/lock/unlock", key)
		a.asks("/lock/lock", by(second))
	}
	a.asks("/lock/unlock", key)
	a.asks("/lock/unlock", map[string]any{"key": b("no lock at all")})
	a.asks("/lock/lock", by(999))
}

func (a *alike) elect(name []byte, first, second int64) {
	election := map[string]any{"name": name}
	by := func(lease int64) map[string]any {
		return map[string]any{"name": name, "lease": lease, "value": fmt.Append(nil, lease)}
	}
	a.asks("/election/leader", election)
	won, ok := a.asks("/election/campaign", by(first))
	if !ok {
		return
	}
	var answer struct{ Leader map[string]any }
	check(json.Unmarshal(b(won.Body), &answer))
	leader := map[string]any{"leader": answer.Leader}
	says := map[string]any{"leader": answer.Leader, "value": fmt.Append(nil, a.calls)}
	a.asks("/election/leader", election)
	a.asks("/election/proclaim", says)
	waits := a.waiting(name, "/election/campaign", by(second))
	a.asks("/election/observe", election)
	a.asks("/election/resign", leader)
	waits()
	a.asks("/election/leader", election)
	// Who leads no longer, and nobody.
	a.asks("/election/proclaim", says)
	a.asks("/election/resign", leader)
	a.asks("/election/proclaim", map[string]any{"value": b("x")})
	a.asks("/election/resign", map[string]any{})
}

// waiting begins a call that waits on both sides, and comes back once both have its key, the second
// behind the name. What it gives waits for the answers, and holds them against each other.
func (a *alike) waiting(name []byte, path string, message map[string]any) func() {
	ctx, cancel := context.WithTimeout(context.Background(), hurry)
	var answers [2]chan *said
	var errs [2]error
	for n, s := range a.sides {
		answers[n] = make(chan *said, 1)
		go func() {
			var answer *said
			answer, errs[n] = ask(ctx, s, path, message)
			answers[n] <- answer
		}()
	}
	q := &pb.RangeRequest{Key: append(slices.Clone(name), '/'), RangeEnd: append(slices.Clone(name), '0'), CountOnly: true}
	for _, s := range a.sides {
		for {
			answer, err := s.kv.Range(ctx, q)
			if err != nil {
				a.fault("%s: nobody waits for %q: %v", s.name, name, err)
			}
			if answer.Count == 2 {
				a.saw(answer.Header)
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	return func() {
		defer cancel()
		both(a, "what was waited for: "+path+" "+describe(message), func(_ context.Context, s *side) (*said, error) {
			n := slices.Index(a.sides[:], s)
			return <-answers[n], errs[n]
		})
	}
}

func (a *alike) grant(q *pb.LeaseGrantRequest) {
	both(a, "grant "+describe(q), func(ctx context.Context, s *side) (*pb.LeaseGrantResponse, error) {
		answer, err := s.lease.LeaseGrant(ctx, q)
		plain(answer.GetHeader())
		return answer, err
	})
}

func (a *alike) revoke(id int64) {
	answer, ok := both(a, fmt.Sprint("revoke ", id), func(ctx context.Context, s *side) (*pb.LeaseRevokeResponse, error) {
		answer, err := s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
		plain(answer.GetHeader())
		return answer, err
	})
	if ok {
		a.saw(answer.Header)
	}
}

// expires lets leases run out, which deletes their keys. Which of several goes first is left open:
// the events of each key have to be the same in their order, and the revisions of all of them
// together, but not which key was deleted at which. History up to then is compacted, so that nobody
// asks what was between.
func (a *alike) expires() {
	for a.alarms > 0 {
		a.calm()
	}
	a.listen()
	const id = 77
	q := &pb.WatchCreateRequest{Key: b("\x00"), RangeEnd: b("\x00"), WatchId: id, PrevKv: true}
	a.send("watch of what expires", &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: q}})
	a.barrier()
	// The shortest that there is, asked for in three ways; one has no keys.
	leases := map[int64]int64{50: 2, 51: 0, 52: -1}
	for _, lease := range []int64{50, 51, 52} {
		a.grant(&pb.LeaseGrantRequest{ID: lease, TTL: leases[lease]})
	}
	// An id of the server's choice.
	both(a, "grant without an id", func(ctx context.Context, s *side) (*pb.LeaseGrantResponse, error) {
		answer, err := s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 5000})
		plain(answer.GetHeader())
		if err != nil || answer.ID <= 0 {
			return answer, err
		}
		_, err = s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: answer.ID})
		answer.ID = 1
		return answer, err
	})
	for n := range 2 + a.Intn(6) {
		a.put(&pb.PutRequest{Key: a.pick("a", "ab", "expires/a", "expires/b", "expires/c"), Value: b("x"), Lease: 50 + int64(n%2)})
	}
	a.put(&pb.PutRequest{Key: b("expires/last"), Lease: 50})
	deadline := time.Now().Add(hurry)
	for _, s := range a.sides {
		for _, lease := range []int64{50, 51, 52} {
			for {
				ctx, cancel := context.WithTimeout(context.Background(), hurry)
				answer, err := s.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: lease})
				cancel()
				if err == nil && answer.TTL == -1 {
					break
				}
				if time.Now().After(deadline) {
					a.fault("%s: lease %d does not expire: %v, %v", s.name, lease, answer, err)
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	a.put(&pb.PutRequest{Key: b("expires/mark")})
	var told [2]string
	for {
		var whole [2]bool
		for n, s := range a.sides {
			told[n], whole[n] = byKey(s.heard.take()[id])
		}
		if whole[0] && whole[1] {
			break
		}
		if time.Now().After(deadline) {
			a.fault("not told of the mark: %v\n%s\n%s", whole, told[0], told[1])
		}
		time.Sleep(5 * time.Millisecond)
	}
	if told[0] != told[1] {
		a.fault("what expired is told in different ways:\netcd:  %s\nquoin: %s", told[0], told[1])
	}
	a.events += strings.Count(told[0], "\n")
	a.compact(&pb.CompactionRequest{Revision: a.revision, Physical: true})
	a.listen()
}

// byKey puts events in the order of their keys, and takes out of deletes when they were; the
// revisions follow. It says whether the mark is among them.
func byKey(lines []string) (string, bool) {
	type told struct{ key, line string }
	var all []told
	var revisions []int64
	whole := false
	for _, line := range lines {
		var event mvccpb.Event
		if json.Unmarshal(b(line), &event) != nil || event.Kv == nil {
			continue
		}
		whole = whole || string(event.Kv.Key) == "expires/mark"
		revisions = append(revisions, event.Kv.ModRevision)
		if event.Type == mvccpb.DELETE {
			event.Kv.ModRevision = 0
		}
		all = append(all, told{string(event.Kv.Key), describe(&event)})
	}
	slices.SortStableFunc(all, func(a, b told) int { return strings.Compare(a.key, b.key) })
	slices.Sort(revisions)
	var text strings.Builder
	for _, event := range all {
		fmt.Fprintln(&text, event.line)
	}
	// Two deletes of one lease share a revision; how many keys a lease had may not be mixed up.
	fmt.Fprintln(&text, slices.Compact(revisions))
	return text.String(), whole
}
