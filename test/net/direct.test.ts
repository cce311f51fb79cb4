import { once } from 'node:events'
import { connect, createServer, Socket, type AddressInfo } from 'node:net'
import t from 'tap'
import { direct } from '../../src/net/direct.ts'

t.test('this Node lets a socket be written to past its stream', async t => {
  if (!direct) return t.fail('its streams are used for everything, which costs more')
  const server = createServer(socket => socket.pause()).listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await once(server, 'listening')
  const socket = connect({ host: '127.0.0.1', port: (server.address() as AddressInfo).port })
  t.equal(direct.handleOf(new Socket()), null, 'not before there is a connection')
  await once(socket, 'connect')
  const handle = direct.handleOf(socket)!
  t.ok(handle)

  const statuses: number[] = []
  const waiter = { written: (status: number) => void statuses.push(status) }
  const bytes = Buffer.alloc(100_000)
  let outcome = direct.write(handle, bytes, waiter)
  t.equal(outcome, 'taken')
  while (outcome === 'taken') outcome = direct.write(handle, bytes, waiter)
  t.equal(outcome, 'waits', 'once the kernel has as much as it takes')
  t.ok(handle.writeQueueSize > 0)

  socket.destroy()
  await once(socket, 'close')
  t.match(statuses, [Number])
  t.ok(statuses[0]! < 0, 'what waited never went')
  t.equal(direct.write(handle, bytes, waiter), 'failed', 'nor does anything after')
  t.equal(direct.handleOf(socket), null)
})
