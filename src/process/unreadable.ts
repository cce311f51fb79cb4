import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { ConnectionError } from 'fastify'
import { endConnection } from '../net/ending.ts'
import { problemDetails } from '../problem.ts'

/** Statuses for what Node finds wrong with a request; all else is 400. */
const CLIENT_ERRORS: Record<string, number> = { HPE_HEADER_OVERFLOW: 431, ERR_HTTP_REQUEST_TIMEOUT: 408 }

/** Answers a request that can't be read as HTTP, and ends its connection. */
export function answerUnreadable(error: ConnectionError, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy()
  const status = CLIENT_ERRORS[error.code] ?? 400
  const body = JSON.stringify(problemDetails(status, `the request can't be read: ${error.code}`))
  // an answer to HEAD has no content: what follows would be taken for the next one (RFC 9110, section 9.3.2). The bytes of
  // the request are a Buffer, whatever their type says
  const packet = error.rawPacket as unknown as Buffer | undefined
  const content = packet?.toString('latin1', 0, 5) === 'HEAD ' ? '' : body
  endConnection(
    socket,
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\n` +
      `Content-Type: application/problem+json\r\nX-Content-Type-Options: nosniff\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${content}`
  )
}
