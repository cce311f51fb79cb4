/**
 * What to change, by what is wrong: lines of each proxy's own configuration. A line that begins with `#` says what must not
 * stand there, or that nothing is needed. nginx, HAProxy, Caddy and Apache are as in deploy/, where a test runs them; of
 * Traefik and ingress-nginx it is what their documentation says.
 */
const ADVICE = {
  buffering: {
    why: 'Something on the way holds the answer back until it has enough of it, or all.',
    lines: {
      nginx: [
        '# no "proxy_ignore_headers X-Accel-Buffering;": Ringside says that its streams are not to be buffered; or',
        'proxy_buffering off;'
      ],
      HAProxy: ['option http-no-delay', '# no "http-response wait-for-body"'],
      Caddy: ['# no plugin that needs the whole answer; reverse_proxy passes streams on at once'],
      Apache: [
        '# no filter that needs the whole answer, such as mod_substitute; else, with BalancerMember or ProxyPass:',
        'flushpackets=on'
      ],
      Traefik: ['# no plugin that needs the whole answer, such as a rewriting of bodies'],
      'ingress-nginx': ["nginx.ingress.kubernetes.io/proxy-buffering: 'off'"],
      Varnish: ['return (pipe);'],
      lighttpd: ['server.stream-response-body = 2']
    }
  },
  compression: {
    why: 'Something on the way compresses, and keeps what it has not filled a block with. Ringside compresses by itself.',
    lines: {
      nginx: ['gzip off;'],
      HAProxy: ['# no "compression algo", nor "filter compression"'],
      Caddy: ['# no "encode" for /events'],
      Apache: ['SetEnv no-gzip 1'],
      Traefik: ['# in the middleware:', 'compress:', '  excludedContentTypes:', '    - text/event-stream'],
      'ingress-nginx': ["use-gzip: 'false'", '# in the ConfigMap'],
      Varnish: ['return (pipe);'],
      lighttpd: ['# no "text/event-stream" in deflate.mimetypes']
    }
  },
  delay: {
    why: 'Something on the way waits for more before it sends what it has.',
    lines: { HAProxy: ['option http-no-delay', '# in "defaults", or in the frontend'] }
  },
  idle: {
    why: 'A time-out of silence is shorter than it is silent: 15 s on a stream (HEARTBEAT), 20 s on a WebSocket.',
    lines: {
      nginx: ['proxy_read_timeout 60s;', 'proxy_send_timeout 60s;'],
      HAProxy: ['timeout client 60s', 'timeout server 60s', 'timeout tunnel 75s'],
      Caddy: ['# no "read_timeout" in "transport http", no "stream_timeout"'],
      Apache: ['Timeout             60', '# and with each BalancerMember or ProxyPass: timeout=60'],
      Traefik: ['# of the entry point, under transport:', 'respondingTimeouts:', '  readTimeout: 0s'],
      'ingress-nginx': [
        "nginx.ingress.kubernetes.io/proxy-read-timeout: '60'",
        "nginx.ingress.kubernetes.io/proxy-send-timeout: '60'"
      ],
      Varnish: ['return (pipe);', '# varnishd -p pipe_timeout=60'],
      Ringside: ['HEARTBEAT=5s', '# where the time-out is not yours to change; it is for streams alone']
    }
  },
  lifetime: {
    why: 'Something on the way ends every answer after a time, however much comes.',
    lines: {
      nginx: ['# it has no such time-out; proxy_read_timeout is of silence'],
      HAProxy: ['# it has no such time-out, but for "hard-stop-after" at a reload'],
      Caddy: ['# in the global "servers { timeouts { … } }": no "write"; no "stream_timeout"'],
      Apache: ['# it has no such time-out'],
      Traefik: ['# of the entry point, under transport:', 'respondingTimeouts:', '  writeTimeout: 0s'],
      'ingress-nginx': ['worker-shutdown-timeout: 1h', '# in the ConfigMap: after a reload'],
      Varnish: ['return (pipe);', '# else send_timeout ends each stream after 600 s'],
      'Traffic Server': ['CONFIG proxy.config.http.transaction_active_timeout_in INT 0']
    }
  },
  http2: {
    why: 'Browsers open six connections of HTTP/1.1 to a host, for all tabs together, and each stream takes one.',
    lines: {
      nginx: ['listen 443 ssl http2;', '# from 1.25.1 on: http2 on;'],
      HAProxy: ['bind :443 ssl crt /etc/ssl/ringside/both.pem alpn h2,http/1.1'],
      Caddy: ['# by itself, unless "protocols" leaves out h2'],
      Apache: ['Protocols h2 http/1.1'],
      Traefik: ['# by itself, unless tls.options has alpnProtocols without h2'],
      'ingress-nginx': ["use-http2: 'true'", '# in the ConfigMap; it is so by default'],
      Ringside: ['TLS_CERT=/etc/ssl/ringside/cert.pem TLS_KEY=/etc/ssl/ringside/key.pem']
    }
  },
  streams: {
    why: 'All tabs of a browser share one connection, and what is past the limit waits without a word. Fewer streams help everywhere: one for all topics, or one for all tabs (`shared: true`).',
    lines: {
      nginx: ['http2_max_concurrent_streams 512;'],
      HAProxy: ['tune.h2.max-concurrent-streams 512'],
      Caddy: ['# 250, always'],
      Apache: ['# 6 on a new connection, whatever is set and announced: only fewer streams help'],
      Traefik: ['# of the entry point:', 'http2:', '  maxConcurrentStreams: 512'],
      'ingress-nginx': ["http2-max-concurrent-streams: '512'", '# in the ConfigMap'],
      lighttpd: ['# 8, always: only fewer streams help']
    }
  },
  resuming: {
    why: 'Something on the way takes the header Last-Event-ID away.',
    lines: {
      nginx: ['# no "proxy_set_header Last-Event-ID", no "proxy_pass_request_headers off;"'],
      HAProxy: ['# no "http-request del-header Last-Event-ID"'],
      Caddy: ['# no "header_up -Last-Event-ID"'],
      Apache: ['# no "RequestHeader unset Last-Event-ID"'],
      Traefik: ['# no Last-Event-ID in "customRequestHeaders" of a middleware'],
      'ingress-nginx': ['# no Last-Event-ID in proxy-set-headers']
    }
  },
  preflight: {
    why: 'Ringside answers OPTIONS and says all of CORS by itself; two answers are none.',
    lines: {
      nginx: [
        '# no "add_header Access-Control-Allow-Origin", no "limit_except", no "if ($request_method = OPTIONS)"'
      ],
      HAProxy: [
        '# no "http-response add-header Access-Control-Allow-Origin", no rule that denies METH_OPTIONS'
      ],
      Caddy: ['# no "header Access-Control-Allow-Origin", no "respond" for the method OPTIONS'],
      Apache: [
        '# no "Header … Access-Control-Allow-Origin", no "<LimitExcept>", no "Require" that OPTIONS fails'
      ],
      Traefik: ['# no "accessControlAllowOriginList" in a middleware, no rule by Method'],
      'ingress-nginx': ["nginx.ingress.kubernetes.io/enable-cors: 'false'"]
    }
  },
  origins: {
    why: 'Pages of other origins are those that Ringside is told of.',
    lines: { Ringside: ['CORS_ORIGIN=https://app.example.com'] }
  },
  websocket: {
    why: 'The headers Upgrade and Connection are for the next hop, so that each hop must say them anew.',
    lines: {
      nginx: [
        'proxy_http_version 1.1;',
        'proxy_set_header Upgrade $http_upgrade;',
        'proxy_set_header Connection $connection_upgrade;',
        '# and in "http", outside of "server":',
        'map $http_upgrade $connection_upgrade {',
        '    default upgrade;',
        "    ''      '';",
        '}'
      ],
      HAProxy: ['# by itself, unless "http-request del-header Upgrade"', 'timeout tunnel 75s'],
      Caddy: ['# by itself, unless "header_up Connection" or "header_up Upgrade"'],
      Apache: ['# with each BalancerMember or ProxyPass (2.4.47 or newer):', 'upgrade=websocket'],
      Traefik: ['# by itself'],
      'ingress-nginx': ['# by itself, unless a snippet sets Connection'],
      Varnish: [
        '# in vcl_recv, of a request with req.http.Upgrade:',
        'return (pipe);',
        '# in vcl_pipe:',
        'set bereq.http.Upgrade = req.http.Upgrade;',
        'set bereq.http.Connection = req.http.Connection;'
      ],
      lighttpd: ['proxy.header = ( "upgrade" => "enable" )']
    }
  },
  origin: {
    why: 'Ringside must be told by which origin its pages have come, on /ws as well, and by whom.',
    lines: {
      nginx: [
        'proxy_set_header Host $http_host;',
        'proxy_set_header X-Forwarded-Host $http_host;',
        'proxy_set_header X-Forwarded-Proto $scheme;',
        'proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;'
      ],
      HAProxy: [
        'option forwardfor',
        'http-request set-header X-Forwarded-Proto http',
        'http-request set-header X-Forwarded-Proto https if { ssl_fc }',
        'http-request set-header X-Forwarded-Host %[req.hdr(Host)]'
      ],
      Caddy: ['# by itself, unless "header_up Host" or "header_up X-Forwarded-…"'],
      Apache: ['ProxyPreserveHost On', 'RequestHeader set X-Forwarded-Proto "expr=%{REQUEST_SCHEME}"'],
      Traefik: ['# by itself, unless "passHostHeader: false"'],
      'ingress-nginx': ['# by itself, unless "upstream-vhost"'],
      Varnish: ['set req.http.X-Forwarded-Host = req.http.Host;'],
      Ringside: ['TRUST_PROXY=10.0.0.2', '# the address of whatever stands before it']
    }
  },
  away: {
    why: "A browser's EventSource comes back after 200 alone. The whole of it lies in deploy/ for each of these.",
    lines: {
      nginx: [
        'error_page 502 504 = @away;',
        'location @away {',
        '    default_type text/event-stream;',
        '    add_header Access-Control-Allow-Origin $http_origin always;',
        '    add_header Access-Control-Allow-Credentials true always;',
        '    if ($http_accept ~ "text/event-stream") {',
        '        return 200 "retry: 3000\\n\\n";',
        '    }',
        '    return 503;',
        '}'
      ],
      HAProxy: [
        '# in a backend for streams; the file lies in deploy/, and so do the lines for CORS:',
        'errorfile 502 /etc/haproxy/haproxy-away.http',
        'errorfile 503 /etc/haproxy/haproxy-away.http',
        'errorfile 504 /etc/haproxy/haproxy-away.http'
      ],
      Caddy: [
        'handle_errors {',
        '	@stream header Accept *text/event-stream*',
        '	handle @stream {',
        '		header Content-Type text/event-stream',
        '		header Access-Control-Allow-Origin {header.Origin}',
        '		header Access-Control-Allow-Credentials true',
        '		respond "retry: 3000',
        '',
        '" 200',
        '	}',
        '}'
      ],
      Apache: [
        '# the file lies in deploy/, and so do the lines for CORS:',
        'Alias "/away.asis" "/etc/apache2/ringside/apache-away.asis"',
        '<If "%{HTTP:Accept} =~ m#text/event-stream#">',
        '    ErrorDocument 502 /away.asis',
        '    ErrorDocument 503 /away.asis',
        '    ErrorDocument 504 /away.asis',
        '</If>'
      ],
      Traefik: [
        '# a middleware of the router for streams; "away" is an nginx with deploy/away.conf:',
        'errors:',
        '  status:',
        '    - 502-504',
        '  statusRewrites:',
        "    '502-504': 200",
        '  service: away',
        '  query: /'
      ],
      'ingress-nginx': [
        '# "away" is an nginx with deploy/away.conf:',
        'nginx.ingress.kubernetes.io/custom-http-errors: 502,503,504',
        'nginx.ingress.kubernetes.io/default-backend: away'
      ]
    }
  },
  headers: {
    why: 'Something on the way has less room for a header or an address than a token may need.',
    lines: {
      nginx: ['large_client_header_buffers 4 24k;'],
      HAProxy: ['tune.bufsize 32768'],
      Caddy: ['# 1 MB, unless "max_header_size" says less'],
      Apache: [
        'LimitRequestLine      24000',
        'LimitRequestFieldSize 24000',
        '# outside of any <VirtualHost>'
      ],
      Traefik: ['# 1 MB, unless "maxHeaderBytes" says less'],
      'ingress-nginx': ['large-client-header-buffers: 4 24k', '# in the ConfigMap'],
      Varnish: ['# varnishd -p http_req_hdr_len=24k -p http_req_size=48k -p workspace_client=128k'],
      lighttpd: ['server.max-request-field-size = 24000']
    }
  },
  body: {
    why: 'Something on the way has less room for a request than a batch may need. Ringside has limits of its own.',
    lines: {
      nginx: ['client_max_body_size 0;'],
      HAProxy: ['# by itself, unless a rule looks at req.body_size'],
      Caddy: ['# by itself, unless "request_body { max_size … }"'],
      Apache: ['LimitRequestBody 0'],
      Traefik: ['# by itself, unless the middleware "buffering" has maxRequestBodyBytes'],
      'ingress-nginx': ["nginx.ingress.kubernetes.io/proxy-body-size: '0'"],
      lighttpd: ['server.max-request-size = 0']
    }
  },
  leaving: {
    why: 'Something on the way keeps connections of clients that are gone, and each takes a place.',
    lines: {
      nginx: ['# no "proxy_ignore_client_abort on;"'],
      HAProxy: ['option abortonclose'],
      Caddy: ['# by itself, unless "flush_interval -1" before 2.7'],
      Apache: ['# at the second or third sign of life, whatever is set'],
      Traefik: ['# by itself'],
      'ingress-nginx': ['# by itself, unless a snippet has "proxy_ignore_client_abort on;"'],
      Varnish: ['return (pipe);']
    }
  },
  clocks: {
    why: 'A token is good from one time to another, by the clock of Ringside.',
    lines: { systemd: ['timedatectl set-ntp true'] }
  }
} as const satisfies Record<string, Advice>

/** What is wrong, as far as there is advice for it. */
export type AdviceId = keyof typeof ADVICE

/** Why it is wrong, and for each that may stand on the way what to change there. */
export interface Advice {
  readonly why: string
  readonly lines: Readonly<Record<string, readonly string[]>>
}

export const ADVICE_IDS = Object.keys(ADVICE) as AdviceId[]

export function adviceFor(id: AdviceId): Advice {
  return ADVICE[id]
}
