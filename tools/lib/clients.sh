# The clients of etcd that we did not write, installed into build/clients from package registries;
# tests/conformance/clients.rs runs them. Sourced, like need.sh.

# client_of NAME COMMAND ...: runs COMMAND in build/clients/NAME with the sources of
# tests/conformance/clients at hand as $sources, unless that has been done for these sources.
# COMMAND's words are said only if it fails.
client_of() {
    local name=$1 work=build/clients/$1 stamp
    local sources=$PWD/tests/conformance/clients
    shift
    stamp=$(cat "$sources/requirements.txt" "$sources"/node/* "$sources"/java/* | sha256sum)
    if [ "$(cat "$work/built" 2>/dev/null)" = "$stamp" ]; then
        return 0
    fi
    say "installing the client of etcd for $name" >&2
    rm -rf "$work"
    mkdir -p "$work"
    (cd "$work" && timeout 300 bash -c "set -e; sources=$(printf %q "$sources"); $*") >"$work/build.log" 2>&1 || {
        tail -n 5 "$work/build.log" >&2
        return 1
    }
    echo "$stamp" >"$work/built"
}

# need_clients: installs what can be installed; says on stdout what cannot, a line each.
need_clients() {
    if ! command -v go >/dev/null 2>&1; then
        echo "the comparison with etcd's answers through its own client, and its packages in use (no Go here)"
        echo "etcdctl 3.7.3 (no Go here)"
        echo "the comparison with a running etcd (no Go here to build it)"
    else
        go_client || echo "the comparison with etcd's answers through its own client, and its packages in use (could not be built)"
        go_program etcdctl v3.7.3 go.etcd.io/etcd/etcdctl/v3 go.etcd.io/etcd/etcdctl/v3 ||
            echo "etcdctl 3.7.3 (could not be built)"
        go_program etcd v3.7.3 go.etcd.io/etcd/server/v3 go.etcd.io/etcd/server/v3 ||
            echo "the comparison with a running etcd (it could not be built)"
    fi
    need_packages etcdctl=etcd-client >&2 || echo "Debian's etcdctl (could not be installed)"
    need_packages curl=curl >&2 || echo "curl (could not be installed)"
    if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
        echo "Python's clients etcd-sdk-python and etcd3gw (no venv module here)"
    else
        client_of python 'python3 -m venv . && bin/pip install --quiet --require-virtualenv -r "$sources/requirements.txt"' ||
            echo "Python's clients etcd-sdk-python and etcd3gw (could not be installed)"
    fi
    if ! command -v npm >/dev/null 2>&1; then
        echo "etcd3 for Node.js (no npm here)"
    else
        client_of node 'cp "$sources"/node/* . && npm ci --no-audit --no-fund --ignore-scripts' ||
            echo "etcd3 for Node.js (could not be installed)"
    fi
    if ! command -v mvn >/dev/null 2>&1 || ! command -v javac >/dev/null 2>&1; then
        echo "jetcd (no Java and Maven here)"
    else
        client_of java 'cp "$sources"/java/* . && mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies -DincludeScope=runtime -DoutputDirectory=lib && javac -cp "lib/*" -d . Use.java' ||
            echo "jetcd (could not be installed)"
    fi
}
