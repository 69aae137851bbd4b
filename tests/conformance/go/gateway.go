package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// The same calls through the JSON gateway: status and answer have to be the same, and the texts of
// refusals.

// said is an answer over HTTP.
type said struct {
	Status int
	Body   string
}

// gateway makes a call; sometimes its text is damaged, which may make another message of it, or
// none, but the same for both.
func (a *alike) gateway() {
	var path string
	var message proto.Message
	switch a.Intn(12) {
	case 0, 1, 2:
		path, message = "/kv/range", a.rangeRequest()
	case 3, 4:
		q := a.putRequest()
		q.Lease = a.someLease()
		path, message = "/kv/put", q
	case 5:
		path, message = "/kv/deleterange", a.deleteRequest()
	case 6, 7, 8:
		q := a.txnRequest(2)
		a.leased(q.Success)
		path, message = "/kv/txn", q
	case 9:
		path, message = "/lease/keepalive", &pb.LeaseKeepAliveRequest{ID: int64(20 + a.Intn(3))}
	case 10:
		path, message = "/lease/timetolive", &pb.LeaseTimeToLiveRequest{ID: int64(20 + a.Intn(3)), Keys: a.chance(2)}
	default:
		path, message = "/maintenance/downgrade", &pb.DowngradeRequest{Version: string(a.pick("3.6", "3.5.0", "x"))}
	}
	text, err := protojson.MarshalOptions{UseProtoNames: a.chance(2), EmitUnpopulated: a.chance(6)}.Marshal(message)
	check(err)
	// A space behind commas comes and goes.
	var compact bytes.Buffer
	check(json.Compact(&compact, text))
	text = compact.Bytes()
	// A stream ends in two ways at a message that cannot be read: docs/compatibility.md.
	if a.chance(3) && path != "/lease/keepalive" {
		for range 1 + a.Intn(3) {
			text = a.damaged(text)
		}
	}
	a.posts("/v3"+path, text)
}

// What texts are damaged with: what JSON, base64 and numbers are made of.
const damage = `{}[]",:\/ =-_+.019eEAaZtfnulkvr'x`

var pieces = []string{`"key":"YQ=="`, `"prevKv":true`, `"lease":0`, `null`, `true`, `{}`, `[]`, `1.0`, `"1e0"`, `-0`, `00`, `"x":[{}]`, `\u0061`, `\n`, `"revision":3.0`,
	`"request_put":{"key":"Yg"}`, `"version":"1"`, `,`, `Zm9`, `==`, "é", "\n"}

func (a *alike) damaged(text []byte) []byte {
	at := a.Intn(len(text) + 1)
	before, behind := text[:at], text[at:]
	var put []byte
	switch a.Intn(4) {
	case 0:
		put = []byte{damage[a.Intn(len(damage))]}
	case 1:
		put = []byte(pieces[a.Intn(len(pieces))])
	case 2:
		put = []byte{damage[a.Intn(len(damage))]}
		behind = behind[min(1, len(behind)):]
	default:
		behind = behind[min(1+a.Intn(4), len(behind)):]
	}
	return bytes.Join([][]byte{before, put, behind}, nil)
}

func (a *alike) posts(path string, text []byte) {
	answer, ok := both(a, fmt.Sprintf("%s %s", path, text), func(ctx context.Context, s *side) (*said, error) {
		return s.post(ctx, path, text)
	})
	if ok {
		a.sawText(answer.Body)
	}
}

// post sends a text, and gives what is said first: a stream may go on.
func (s *side) post(ctx context.Context, path string, text []byte) (*said, error) {
	request, err := http.NewRequestWithContext(ctx, "POST", "http://"+s.endpoint+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := bufio.NewReader(response.Body).ReadString('\n')
	if err != nil && err != io.EOF {
		return nil, err
	}
	return &said{response.StatusCode, normalText(body)}, nil
}

// normalText takes out of a text what differs from server to server: who answers, and the space
// that etcd's writer puts behind commas, or not, and makes narrow, or not, by the build.
func normalText(body string) string {
	var answer map[string]any
	reader := json.NewDecoder(strings.NewReader(body))
	reader.UseNumber()
	if reader.Decode(&answer) != nil {
		return body
	}
	of := answer
	if result, ok := answer["result"].(map[string]any); ok {
		of = result
	}
	if header, ok := of["header"].(map[string]any); ok {
		for _, name := range []string{"cluster_id", "member_id", "raft_term"} {
			if header[name] == nil {
				fault("no %s in %s", name, body)
			}
			delete(header, name)
		}
	}
	if message, ok := of["message"].(string); ok {
		of["message"] = strings.ReplaceAll(message, "\u00a0", " ")
	}
	if ttl, ok := of["TTL"].(string); ok && len(ttl) > 1 && ttl != "-1" {
		of["TTL"] = "9"
	}
	return describe(answer)
}

// sawText learns the revision from an answer.
func (a *alike) sawText(body string) {
	var answer struct{ Header struct{ Revision string } }
	if json.Unmarshal(b(body), &answer) == nil {
		revision, _ := strconv.ParseInt(answer.Header.Revision, 10, 64)
		a.revision = max(a.revision, revision)
	}
}
