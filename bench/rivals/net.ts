import { createServer, type AddressInfo, type Socket } from 'node:net'
import { PAGE } from './http-server.ts'
import { chunkOf, frameOf, STREAM_HEAD } from './sse.ts'

/**
 * The floor: sockets, and bytes that all of them share. With the argument `tick` all events of a turn of the event loop
 * go out in one write; without it each goes out in its own.
 */
const oneWriteATick = process.argv[2] === 'tick'

const HEAD =
  'HTTP/1.1 200 OK\r\n' +
  Object.entries(STREAM_HEAD)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('') +
  'transfer-encoding: chunked\r\n\r\n'
const PAGE_ANSWER = `HTTP/1.1 200 OK\r\ncontent-length: ${PAGE.length}\r\n\r\n${PAGE}`
const PUBLISHED = 'HTTP/1.1 204 No Content\r\n\r\n'

const subscribers = new Set<Socket>()
/** Requests that have not come whole yet. */
const unread = new Map<Socket, string>()
let frames = ''

function onData(this: Socket, bytes: Buffer): void {
  let text = (unread.get(this) ?? '') + bytes.toString('latin1')
  let answers = ''
  for (;;) {
    const end = text.indexOf('\r\n\r\n') + 4
    if (end < 4) break
    if (text.startsWith('POST')) {
      const length = Number(/content-length: (\d+)/i.exec(text)?.[1])
      if (text.length < end + length) break
      publish(text.slice(end, end + length))
      answers += PUBLISHED
      text = text.slice(end + length)
    } else if (text.startsWith('GET /events')) {
      this.removeListener('data', onData)
      this.resume()
      this.write(HEAD)
      subscribers.add(this)
      text = ''
    } else {
      answers += PAGE_ANSWER
      text = text.slice(end)
    }
  }
  if (text === '') unread.delete(this)
  else unread.set(this, text)
  if (answers !== '') this.write(answers)
}

function onClose(this: Socket): void {
  subscribers.delete(this)
  unread.delete(this)
}

function ignore(): void {}

function publish(data: string): void {
  if (!oneWriteATick) return write(frameOf(data))
  if (frames === '') setImmediate(flush)
  frames += frameOf(data)
}

function flush(): void {
  write(frames)
  frames = ''
}

function write(text: string): void {
  const bytes = Buffer.from(chunkOf(text), 'latin1')
  for (const socket of subscribers) socket.write(bytes)
}

const server = createServer({ noDelay: true }, socket => {
  socket.on('data', onData).on('close', onClose).on('error', ignore)
})
server.listen(0, '127.0.0.1', () => console.log(`listening ${(server.address() as AddressInfo).port}`))
