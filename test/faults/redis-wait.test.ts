/** WAIT_REPLICAS: what is answered 201 is on a replica, also when Redis has forgotten the script that stores. */
import { Redis } from 'ioredis'
import t from 'tap'
import { publish } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { startRedis } from '../support/redis-server.ts'
import { instance } from '../support/redis-system.ts'

t.test('WAIT comes after what it waits for', async t => {
  const primary = await startRedis()
  t.teardown(() => primary.stop())
  const replica = await startRedis({ config: { replicaof: `127.0.0.1 ${primary.port}` } })
  t.teardown(() => replica.stop())
  await eventually(
    () => replica.info('replication'),
    ({ master_link_status }) => master_link_status === 'up',
    'the replica to follow'
  )
  const server = await instance(t, primary.url, { WAIT_REPLICAS: '1' })
  const watcher = new Redis(primary.port)
  const monitor = await watcher.monitor()
  t.teardown(() => [watcher, monitor].forEach(client => client.disconnect()))
  /** What is sent to store, and to wait: the command and the last word of it. */
  const sent: string[] = []
  monitor.on('monitor', (_time: string, [command = '', ...args]: string[]) => {
    if (/^(evalsha|eval)$/i.test(command) && args.includes('a')) sent.push('store')
    if (/^wait$/i.test(command)) sent.push('wait')
  })
  for (const data of ['1', '2']) await publish(server, 'a', data)
  sent.length = 0
  await primary.command('SCRIPT', 'FLUSH')
  await publish(server, 'a', '3')
  await eventually(
    () => sent.filter(what => what === 'store').length,
    count => count >= 2,
    'the script to be sent once more'
  )
  const after = sent.slice(sent.lastIndexOf('store'))
  t.ok(after.includes('wait'), sent.join(' '))
})
