/**
 * The bare node:http floor behind a proxy that compresses, as `nginx` or `caddy` does it for each connection. The proxy is a
 * child of this process, so that what is measured is both.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { connect, createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { serveHttp } from './http-server.ts'
import { frameOf } from './sse.ts'

const [, , name, directory] = process.argv as [string, string, string, string]

const subscribers = new Set<ServerResponse>()

function onClose(this: ServerResponse): void {
  subscribers.delete(this)
}

const floor = serveHttp(
  (_request, response) => {
    // Caddy leaves alone what says no-transform, and has no head before there is something of the body
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' })
    response.write(frameOf('open'))
    response.on('close', onClose)
    subscribers.add(response)
  },
  data => {
    const bytes = Buffer.from(frameOf(data), 'latin1')
    for (const response of subscribers) response.write(bytes)
  }
)

/** As each of them has to be told to compress a stream, and to hand on each event as it comes. */
const PROXIES: Record<string, (port: number, floorPort: number) => [file: string, ...args: string[]]> = {
  nginx(port, floorPort) {
    const config = join(directory, 'nginx.conf')
    writeFileSync(
      config,
      `daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid ${directory}/nginx.pid;
error_log stderr error;
${process.getuid?.() === 0 ? 'user root;' : ''}
events { worker_connections 19900; }
http {
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path ${directory}/body;
  proxy_temp_path ${directory}/proxy;
  fastcgi_temp_path ${directory}/fastcgi;
  uwsgi_temp_path ${directory}/uwsgi;
  scgi_temp_path ${directory}/scgi;
  server {
    listen 127.0.0.1:${port} backlog=4096;
    gzip on;
    gzip_types text/event-stream;
    location / {
      proxy_pass http://127.0.0.1:${floorPort};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }
  }
}
`
    )
    return ['nginx', '-c', config, '-p', directory, '-e', 'stderr']
  },
  caddy(port, floorPort) {
    const config = join(directory, 'Caddyfile')
    writeFileSync(
      config,
      `{
  auto_https off
  admin off
}
http://127.0.0.1:${port} {
  encode {
    gzip
    minimum_length 1
  }
  reverse_proxy 127.0.0.1:${floorPort} {
    flush_interval -1
    transport http {
      compression off
    }
  }
}
`
    )
    return ['caddy', 'run', '--config', config, '--adapter', 'caddyfile']
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

async function isListening(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  const is = await Promise.race([
    once(socket, 'connect').then(() => true),
    sleep(1000).then(() => false)
  ]).catch(() => false)
  socket.destroy()
  return is
}

floor.listen(0, '127.0.0.1')
await once(floor, 'listening')
const port = await freePort()
const [file, ...args] = PROXIES[name]!(port, (floor.address() as AddressInfo).port)
const proxy = spawn(file, args, { stdio: ['ignore', 'inherit', 'inherit'] })
proxy.on('exit', () => process.exit(1))
process.on('SIGTERM', () => {
  proxy.removeAllListeners('exit').on('exit', () => process.exit(0))
  proxy.kill('SIGKILL')
})
while (!(await isListening(port))) await sleep(20)
console.log(`listening ${port}`)
