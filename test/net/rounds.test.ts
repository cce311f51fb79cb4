import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import { connect, type AddressInfo, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { serveInRounds } from '../../src/net/rounds.ts'

const BODY = 'what was sent'
const POST = `POST /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: ${BODY.length}\r\n\r\n${BODY}`

t.test('requests of one turn are read before any of them is served', async t => {
  const steps: string[] = []
  const server = createServer((request, response) => {
    steps.push('served')
    void text(request).then(body => response.end(body))
  })
  serveInRounds(server)
  server.on('request', () => steps.push('read'))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const sockets: Socket[] = []
  for (let count = 0; count < 3; count++) {
    sockets.push(connect(port, '127.0.0.1'))
    await once(server, 'connection')
  }
  for (const socket of sockets) socket.write(POST)
  // all have come by the time that the server looks
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50)
  const answers = await Promise.all(sockets.map(socket => text(socket)))
  t.ok(answers.every(answer => answer.startsWith('HTTP/1.1 200') && answer.endsWith(BODY)))
  t.strictSame(steps, ['read', 'read', 'read', 'served', 'served', 'served'])
})

t.test('who has gone meanwhile is not served', async t => {
  const served: (string | undefined)[] = []
  const server = createServer(({ url }, response) => {
    served.push(url)
    response.end()
  })
  serveInRounds(server)
  server.on('request', ({ url, socket }: IncomingMessage) => {
    if (url === '/gone') socket.destroy()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  for (const url of ['/gone', '/there']) {
    const socket = connect(port, '127.0.0.1').on('error', () => {})
    socket.write(`GET ${url} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`)
    socket.resume()
    await once(socket, 'close')
  }
  t.strictSame(served, ['/there'])
})
