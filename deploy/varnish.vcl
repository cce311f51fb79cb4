# Varnish before two Ringsides on one Redis. TLS and HTTP/2 belong to something before it (hitch, HAProxy).
# varnishd -a :80 -f /etc/varnish/ringside.vcl -p pipe_timeout=60 -p http_req_hdr_len=24k -p http_req_size=48k -p workspace_client=128k
# pipe_timeout is of silence: longer than HEARTBEAT (15 s) and the ping of a WebSocket (20 s). The other three make room for
# a long token in a header or a query (8 kB by default).
# Tested with Debian's 7.1.1 by test/deploy/varnish.test.ts. Set TRUST_PROXY to Varnish's address in each Ringside.
vcl 4.1;

import directors;
import std;

# Each second, so that an instance that stops gets nobody new.
probe ready {
    .url = "/readyz";
    .interval = 1s;
    .timeout = 1s;
    .window = 2;
    .threshold = 1;
    .initial = 1;
}

backend ringside_1 {
    .host = "ringside-1";
    .port = "3000";
    .connect_timeout = 2s;
    .probe = ready;
}

backend ringside_2 {
    .host = "ringside-2";
    .port = "3000";
    .connect_timeout = 2s;
    .probe = ready;
}

sub vcl_init {
    new ringside = directors.round_robin();
    ringside.add_backend(ringside_1);
    ringside.add_backend(ringside_2);
}

sub vcl_recv {
    # It asks nobody who they are.
    if (req.url ~ "^/metrics($|\?)") {
        return (synth(404));
    }
    # By which origin a page has come: without these its own WebSocket is answered 403. What stands before Varnish and
    # ends TLS has said "https".
    if (!req.http.X-Forwarded-Proto) {
        set req.http.X-Forwarded-Proto = "http";
    }
    set req.http.X-Forwarded-Host = req.http.Host;
    set req.backend_hint = ringside.backend();
    # A stream and a WebSocket pass as bytes. Else send_timeout ends each stream after 600 s in all, and Ringside hears at
    # the third heartbeat that a client has gone.
    if (req.http.Upgrade ~ "(?i)websocket" || req.http.Accept ~ "text/event-stream") {
        # Nobody is there: an answer would be one that closes a browser's EventSource for good, unless it is this one.
        if (!std.healthy(req.backend_hint) && !req.http.Upgrade) {
            return (synth(200, "away"));
        }
        return (pipe);
    }
    # Nothing is cached, and equal long polls don't wait for one another.
    return (pass);
}

sub vcl_pipe {
    if (req.http.Upgrade) {
        set bereq.http.Upgrade = req.http.Upgrade;
        set bereq.http.Connection = req.http.Connection;
    }
}

# An EventSource comes back after it, and keeps its cursor, since there is no id in it. Without the CORS headers it would
# close in a page of another origin; there is nothing in it to hide.
sub vcl_synth {
    if (resp.reason == "away") {
        set resp.http.Content-Type = "text/event-stream";
        set resp.http.Cache-Control = "no-store";
        if (req.http.Origin) {
            set resp.http.Access-Control-Allow-Origin = req.http.Origin;
            set resp.http.Access-Control-Allow-Credentials = "true";
        }
        synthetic({"retry: 3000

"});
        return (deliver);
    }
}
