import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'
import Fastify from 'fastify'
import t from 'tap'
import { ringside } from '../../src/app.ts'
import { logLine, logStream, pretty } from '../../src/process/log.ts'
import { HeldClock } from '../support/clock.ts'

t.test('on a terminal a line is said in words', async t => {
  const said = (line: object) =>
    stripVTControlCharacters(pretty(JSON.stringify({ time: 0, pid: 1, hostname: 'h', ...line })))
  t.match(
    said({ level: 40, reason: 'full', count: 7, msg: 'turned away 7' }),
    /^\d\d:\d\d:\d\d warn {2}turned away 7 reason='full' count=7\n$/
  )
  t.match(
    said({ level: 50, msg: 'gone', err: { message: 'gone', stack: 'Error: gone\n  at x' } }),
    'gone\nError: gone\n  at x\n'
  )
  t.notMatch(
    said({ level: 30, origin: '\x1b[2J', msg: 'a\x1b[2J\x07b' }),
    /[^\P{Cc}\n]/u,
    'nobody writes over it'
  )
  t.match(said(JSON.parse(logLine('it runs', { address: 'x' })) as object), /info {2}it runs address='x'\n$/)
})

t.test('a process whose log nobody reads any more ends all the same', async t => {
  const log = fileURLToPath(new URL('../../src/process/log.ts', import.meta.url))
  const program = `
    import Fastify from 'fastify'
    import { loggerOf } from '${log}'
    const { log } = Fastify({ logger: loggerOf({ LOG_LEVEL: 'info' }) })
    process.stdin.on('end', () => { log.info('a'); log.info('b'); process.exit(0) }).resume()
  `
  const args = ['--import=tsx', '--input-type=module', '-e', program]
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  child.stdout.destroy()
  await once(child.stdout, 'close')
  child.stdin.end()
  t.strictSame(await once(child, 'exit'), [0, null])
})

t.test('what a slow reader of the log has not taken is bounded', async t => {
  const out = new Writable({ write: () => {} })
  const stream = logStream(out)
  for (let number = 0; number < 100; number++) stream.write('x'.repeat(100_000))
  t.ok(out.writableLength > 1_000_000 && out.writableLength < 1_200_000, `${out.writableLength}`)
})

t.test('a refused Origin is said with both sides, each once a minute', async t => {
  const clock = new HeldClock()
  const lines: { msg: string; origin?: string; count?: number; reqId?: string }[] = []
  const app = Fastify({
    logger: { stream: { write: line => lines.push(JSON.parse(line) as (typeof lines)[0]) } }
  })
  await app.register(ringside, { clock, settings: { DEMO: false, CORS_ORIGIN: 'https://shop.example' } })
  t.teardown(() => app.close())
  const publish = (origin: string) =>
    app.inject({ method: 'POST', url: '/events/a', headers: { origin, host: 'localhost' }, body: 'x' })
  const refused = () => lines.filter(({ msg }) => msg.startsWith('refused'))
  t.equal((await publish('https://shop.example')).statusCode, 201)
  const answer = await publish('https://evil.example')
  t.equal(answer.statusCode, 403)
  await publish('https://evil.example')
  await publish('https://evil.example')
  await publish('https://other.example')
  t.match(refused(), [
    {
      level: 30,
      origin: 'https://evil.example',
      allowed: ['http://localhost', 'https://shop.example'],
      count: 1,
      reqId: answer.headers['x-request-id'],
      msg: /https:\/\/evil\.example .*http:\/\/localhost, .*https:\/\/shop\.example/
    },
    { origin: 'https://other.example', count: 1 }
  ])
  await clock.advance(60_000)
  t.match(refused().slice(2), [{ origin: 'https://evil.example', count: 2 }])
  t.equal(refused().length, 3)
})

t.test('an answer that says what went wrong has the id that the log has of its request', async t => {
  const app = Fastify({ logger: { level: 'silent' }, genReqId: () => 'the-request' })
  await app.register(ringside, { settings: { DEMO: false } })
  t.teardown(() => app.close())
  const wrong = await app.inject({
    method: 'POST',
    url: '/events/a%2F%2Fb',
    body: 'x',
    headers: { host: 'localhost' }
  })
  t.equal(wrong.statusCode, 400)
  t.equal(wrong.headers['x-request-id'], 'the-request')
  t.equal((await app.inject('/livez')).headers['x-request-id'], undefined, 'others pay nothing for it')
})
