import { join } from 'node:path'
import { plainLog } from '../load/plain-log.ts'
import { listen, serveHttp } from './http-server.ts'

/** The floor of durable publishes: bare node:http before a plain log, each answered after its flush. Nobody can read. */
const log = plainLog(join(process.argv[2]!, 'log'))
const server = serveHttp(
  (_request, response) => response.writeHead(404).end(),
  data => log.append(`bench message ${data}`)
)
listen(server)
