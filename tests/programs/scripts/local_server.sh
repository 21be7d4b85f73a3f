# A client of a server that runs at home: the connection is home's own loopback.
mkdir site
python3 "$PROGRAMS/make_input.py" text 3 >site/big.txt
echo 'hello from home' >site/index.txt
python3 - <<'PYTHON' &
import functools, http.server, os
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory='site')
handler.log_message = None
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory='site'))
with open('port.new', 'w') as file: file.write(str(server.server_port))
os.rename('port.new', 'port')
server.serve_forever()
PYTHON
server=$!
trap 'kill $server; wait $server 2>/dev/null' EXIT
until [ -e port ]; do read -rt 0.05 <> <(:) || :; done
url=http://127.0.0.1:$(cat port)
$1 curl -sS "$url/index.txt"
$1 curl -sS --limit-rate 4M "$url/big.txt" | sha256sum
$1 curl -sS -o /dev/null -w '%{http_code} %{size_download}\n' "$url/absent"
$1 curl -sS --max-time 20 "$url/big.txt" -o copy && cmp copy site/big.txt && echo same
$1 curl -s http://127.0.0.1:9/
echo "refused: $?"
