package main

import (
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/v3/kubernetes"
)

// kubernetes uses the interface that Kubernetes has for its storage.
func (u *user) kubernetes() {
	store := kubernetes.Client{Client: u.client}
	store.Kubernetes = &store
	const prefix = "/registry/pods/"
	put := must(store.OptimisticPut(u.ctx, prefix+"a", b("1"), 0, kubernetes.PutOptions{}))
	same("created", put.Succeeded, true)
	taken := must(store.OptimisticPut(u.ctx, prefix+"a", b("2"), 0, kubernetes.PutOptions{GetOnFailure: true}))
	same("exists", words(taken.Succeeded, string(taken.KV.Value)), "false 1")
	got := must(store.Get(u.ctx, prefix+"a", kubernetes.GetOptions{}))
	same("got", words(got.KV.ModRevision, got.Revision), words(put.Revision, put.Revision))
	updated := must(store.OptimisticPut(u.ctx, prefix+"a", b("2"), put.Revision, kubernetes.PutOptions{GetOnFailure: true}))
	same("updated", words(updated.Succeeded, updated.Revision), words(true, put.Revision+1))
	old := must(store.Get(u.ctx, prefix+"a", kubernetes.GetOptions{Revision: put.Revision}))
	same("before", string(old.KV.Value), "1")
	for n := range 24 {
		must(store.OptimisticPut(u.ctx, fmt.Sprintf("%sb%02d", prefix, n), b("x"), 0, kubernetes.PutOptions{}))
	}
	same("count", must(store.Count(u.ctx, prefix, kubernetes.CountOptions{})), 25)
	options, seen := kubernetes.ListOptions{Limit: 10}, 0
	for {
		page := must(store.List(u.ctx, prefix, options))
		seen += len(page.Kvs)
		same("of those from here on", page.Count, 25-seen+len(page.Kvs))
		if int64(len(page.Kvs)) == page.Count {
			break
		}
		if options.Revision == 0 {
			options.Revision = page.Revision
			// What comes later is not in later pages.
			must(store.OptimisticPut(u.ctx, prefix+"z", b("x"), 0, kubernetes.PutOptions{}))
		}
		options.Continue = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
	same("all pages", seen, 25)
	kept := must(store.OptimisticDelete(u.ctx, prefix+"a", put.Revision, kubernetes.DeleteOptions{GetOnFailure: true}))
	same("not that one", words(kept.Succeeded, string(kept.KV.Value)), "false 2")
	gone := must(store.OptimisticDelete(u.ctx, prefix+"a", updated.Revision, kubernetes.DeleteOptions{GetOnFailure: true}))
	same("deleted", gone.Succeeded, true)
	must(u.client.Compact(u.ctx, gone.Revision))
	_, err := store.List(u.ctx, prefix, kubernetes.ListOptions{Revision: options.Revision, Limit: 1, Continue: prefix + "b"})
	same("a page too late", err, rpctypes.ErrCompacted)
}
