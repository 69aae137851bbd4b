// Command conformance asks a server of etcd's API everything there is to ask of the calls that
// quoin serves, through etcd's own client, and prints each answer on a line. Run against etcd and
// against quoin it must print the same.
//
//	conformance ENDPOINT script          the fixed list of calls
//	conformance ETCD alike QUOIN SEED    random calls, sent alike to both
//	conformance ENDPOINT packages        the packages of etcd's client, each in use
//	conformance ENDPOINT apiserver       what kube-apiserver does with its storage
//	conformance ENDPOINT survive SEED    writes, and keeps a journal, while the server is killed
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	return n
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: conformance ENDPOINT script | alike QUOIN SEED | packages | apiserver | survive SEED")
		os.Exit(2)
	}
	if os.Args[2] == "alike" {
		beAlike(os.Args[1], os.Args[3], int64(number(os.Args[4])))
		return
	}
	if os.Args[2] == "survive" {
		survive(os.Args[1], int64(number(os.Args[3])))
		return
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Args[1]}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	conn := client.ActiveConnection()
	a := &asker{ctx: ctx, kv: pb.NewKVClient(conn), lease: pb.NewLeaseClient(conn), watch: pb.NewWatchClient(conn), cluster: pb.NewClusterClient(conn),
		maintenance: pb.NewMaintenanceClient(conn), auth: pb.NewAuthClient(conn), health: healthpb.NewHealthClient(conn)}
	switch strings.Join(os.Args[2:3], "") {
	case "script":
		a.script()
		a.leases()
		a.watches()
		a.member()
	case "packages":
		packages(client)
	case "apiserver":
		apiserver(client)
	}
}
