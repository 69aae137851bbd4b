package main

import (
	"context"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// An event as it was told.
type event struct {
	put   bool
	key   string
	value pair
}

// tail is a watch that goes on over every kill, and holds each event against those before it: a gap,
// a repetition or a wrong order shows in revisions, versions and the pairs before.
type tail struct {
	mu       sync.Mutex
	more     *sync.Cond
	cancel   context.CancelFunc
	revision int64
	model    map[string]pair
	told     []event
	events   int
}

func newTail(client *clientv3.Client, from int64) *tail {
	ctx, cancel := context.WithCancel(context.Background())
	t := &tail{cancel: cancel, model: map[string]pair{}}
	t.more = sync.NewCond(&t.mu)
	whole := from == 1
	responses := client.Watch(ctx, root, clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithPrevKV(),
		clientv3.WithProgressNotify(), clientv3.WithFragment())
	go func() {
		for response := range responses {
			if err := response.Err(); err != nil {
				fault("a watch ended: %v", err)
			}
			t.mu.Lock()
			for _, e := range response.Events {
				t.take(e, whole)
			}
			t.more.Broadcast()
			t.mu.Unlock()
		}
		if ctx.Err() == nil {
			fault("a watch ended without a word")
		}
	}()
	return t
}

func (t *tail) take(e *clientv3.Event, whole bool) {
	key, changed := string(e.Kv.Key), e.Kv.ModRevision
	if changed < t.revision {
		fault("a watch told revision %d behind %d", changed, t.revision)
	}
	before, there := t.model[key]
	if there && before.changed >= changed {
		fault("a watch told %s at %d twice, or late", key, changed)
	}
	// One that began later does not know what was before.
	if whole {
		if there != (e.PrevKv != nil) || there && known(e.PrevKv) != before {
			fault("%s at %d: before it was %v, but %v is told", key, changed, brief(before), e.PrevKv)
		}
		if e.Type == mvccpb.PUT && e.Kv.Version != before.version+1 {
			fault("%s at %d: version %d follows %d", key, changed, e.Kv.Version, before.version)
		}
	}
	t.revision = changed
	t.events++
	t.told = append(t.told, event{e.Type == mvccpb.PUT, key, known(e.Kv)})
	if e.Type == mvccpb.PUT {
		t.model[key] = known(e.Kv)
	} else {
		delete(t.model, key)
	}
}

// upTo waits until the watch has told a revision, and gives all that it told since the last check.
func (t *tail) upTo(revision int64) []event {
	late := time.AfterFunc(answerIn, func() { fault("a watch does not come to revision %d in %v", revision, answerIn) })
	defer late.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.revision < revision {
		t.more.Wait()
	}
	return t.told
}
