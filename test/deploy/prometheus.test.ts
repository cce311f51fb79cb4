/** What watches Ringside: the real Prometheus, as Debian has it. Without it most of this is skipped. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { ask, build, publish, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { listen, subscribe } from '../support/reader.ts'

const DEPLOY = fileURLToPath(new URL('../../deploy', import.meta.url))

const isMissing = (program: string) => spawnSync(program, ['--version']).error !== undefined
const skip = (program: string) =>
  isMissing(program) && `${program} is not installed (Debian's package prometheus has it)`

t.test('the metrics are as Prometheus wants them', { skip: skip('promtool') }, async t => {
  const server = await build(t)
  const stream = await listen(t, server, '/events/a')
  await publish(server, 'a', 'x')
  await stream.until(1)
  const { text } = await ask(server, '/metrics')
  const all = promtool(['check', 'metrics'], text)
  // those that prom-client has of Node.js are as they are
  const ours = all.output.split('\n').filter(line => line.startsWith('ringside_'))
  t.strictSame(ours, [])
  t.notMatch(all.output, /error/i)
  stream.close()
})

t.test('the alerts are rules, and each fires when it should', { skip: skip('promtool') }, async t => {
  const checked = promtool(['check', 'rules', 'alerts.yml'])
  t.equal(checked.status, 0, checked.output)
  const tested = promtool(['test', 'rules', 'alerts.test.yml'])
  t.equal(tested.status, 0, tested.output)
})

t.test('each alert has a summary, a runbook, and a test', async t => {
  const names = alertNames()
  t.ok(names.length > 20)
  const tests = read('alerts.test.yml')
  for (const [name, body] of alerts()) {
    t.match(body, /^ +summary: \S/m, name)
    t.match(body, /^ +runbook: >-\n +\S/m, name)
    t.match(tests, `ALERTS{alertname="${name}",alertstate="firing"}`, name)
  }
})

t.test('board and alerts ask for metrics that there are', async t => {
  const server = await build(t)
  const { text } = await ask(server, '/metrics')
  const kinds = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, kind]) => [name!, kind!]))
  const isThere = (name: string) => {
    const histogram = name.replace(/_(bucket|sum|count)$/, '')
    return kinds.get(histogram) === 'histogram' ? name !== histogram : kinds.has(name)
  }
  const board = JSON.parse(read('grafana.json')) as Board
  const shown = [
    ...board.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr)),
    ...board.templating.list.flatMap(({ definition = '' }) => definition),
    ...board.annotations.list.map(({ expr }) => expr)
  ].join('\n')
  const [asked, told] = ['expr', 'runbook'].map(part =>
    alerts().map(([, body]) => body.slice(body.indexOf(`${part}:`)).split(/^ +\w+:(?= [^>]|$)/m)[0])
  ) as [string[], string[]]
  for (const name of metricsIn(`${shown}\n${asked.join('\n')}`)) t.ok(isThere(name), name)
  for (const name of metricsIn(told.join('\n'))) t.ok(kinds.has(name), `${name}, in a runbook`)

  t.test('with labels that they have', async t => {
    const matchers = [...`${shown}\n${asked.join('\n')}`.matchAll(/(\w+)(?:=|!=|=~|!~)"([^"$]+)"/g)]
    t.ok(matchers.length > 20)
    for (const [, label, values] of matchers) {
      // what Prometheus adds itself, and what is more than a list of words
      if (['job', 'alertname', 'alertstate'].includes(label!) || /[.+*]/.test(values!)) continue
      for (const value of values!.split('|')) t.match(text, `${label}="${value}"`, `${label}="${value}"`)
    }
  })

  t.test('and the board shows all that is ours, but what the settings say', async t => {
    const missing = [...kinds.keys()].filter(name => name.startsWith('ringside_') && !shown.includes(name))
    t.strictSame(missing.sort(), [
      'ringside_client_connections_limit',
      'ringside_client_rate_limit',
      'ringside_client_write_limit_bytes',
      'ringside_size_limit_bytes',
      'ringside_subscription_topics_limit'
    ])
    const ids = board.panels.map(({ id }) => id)
    t.equal(new Set(ids).size, ids.length, 'each panel has an id of its own')
  })
})

t.test(
  'Prometheus scrapes two instances, and an alert tells which',
  { skip: skip('prometheus') },
  async t => {
    const [one, two] = await Promise.all([build(t, { RING_SIZE: '2' }), build(t, { RING_SIZE: '2' })])
    const prometheus = await startPrometheus(t, [one, two])
    await eventually(
      () => prometheus.values('up{job="ringside"} == 1'),
      up => up.length === 2,
      'a scrape of both'
    )
    t.strictSame(await prometheus.alerts(), [])
    t.equal((await prometheus.values('ringside_gaps_total{reason="expired"} == 0')).length, 2)

    const first = await publish(one, 'a', '0')
    for (let index = 0; index < 5; index++) await publish(one, 'a', String(index))
    const late = await subscribe(t, one, `/events/a?after=${first}`)
    await late.first('gap')
    const firing = await eventually(
      () => prometheus.alerts(),
      alerts =>
        alerts.some(({ labels, state }) => labels['alertname'] === 'RingsideGaps' && state === 'firing'),
      'the alert of a gap'
    )
    t.strictSame(
      firing
        .filter(({ labels }) => labels['alertname'] === 'RingsideGaps')
        .map(({ labels }) => labels['instance']),
      [`127.0.0.1:${one.port}`],
      'the first gap, and where it was'
    )
    const health = await prometheus.rules()
    t.strictSame(
      health.filter(({ health }) => health !== 'ok').map(({ name, lastError }) => `${name}: ${lastError}`),
      [],
      'each rule can be evaluated on what there is'
    )
    t.equal(health.length, alertNames().length)
    late.close()
  }
)

interface Board {
  readonly panels: readonly { readonly id: number; readonly targets?: readonly { readonly expr: string }[] }[]
  readonly templating: { readonly list: readonly { readonly definition?: string }[] }
  readonly annotations: { readonly list: readonly { readonly expr: string }[] }
}

interface Alert {
  readonly labels: Readonly<Record<string, string>>
  readonly state: string
}

interface Rule {
  readonly name: string
  readonly health: string
  readonly lastError?: string
}

function read(name: string): string {
  return readFileSync(join(DEPLOY, name), 'utf8')
}

/** The alerts by their names, as they stand in the file. */
function alerts(): [name: string, body: string][] {
  const [, ...parts] = read('alerts.yml').split(/^ +- alert: /m)
  return parts.map(part => [/^\w+/.exec(part)![0], part])
}

function metricsIn(text: string): Set<string> {
  return new Set([...text.matchAll(/\b(?:ringside|nodejs|process)_\w+/g)].map(([name]) => name))
}

function alertNames(): string[] {
  return alerts().map(([name]) => name)
}

/** Runs promtool in the folder of the rules; `input` is what it reads. */
function promtool(args: readonly string[], input = ''): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync('promtool', args, { cwd: DEPLOY, input, encoding: 'utf8' })
  return { status, output: stdout + stderr }
}

/** A Prometheus with our rules, once a second, which ends with the test. */
async function startPrometheus(t: Test, servers: readonly TestServer[]) {
  const folder = mkdtempSync(join(tmpdir(), 'prometheus-'))
  const port = await freePort()
  const targets = servers.map(server => `127.0.0.1:${server.port}`)
  writeFileSync(
    join(folder, 'prometheus.yml'),
    JSON.stringify({
      global: { scrape_interval: '1s', evaluation_interval: '1s' },
      rule_files: [join(DEPLOY, 'alerts.yml')],
      scrape_configs: [{ job_name: 'ringside', static_configs: [{ targets }] }]
    })
  )
  const child = spawn(
    'prometheus',
    [
      `--config.file=${join(folder, 'prometheus.yml')}`,
      `--storage.tsdb.path=${join(folder, 'data')}`,
      `--web.listen-address=127.0.0.1:${port}`
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] }
  )
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const ended = new Promise<void>(resolve => child.on('close', () => resolve()))
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
    rmSync(folder, { recursive: true, force: true })
  })
  await eventually(
    () =>
      ask({ port }, '/-/ready').then(
        ({ status }) => status,
        () => 0
      ),
    status => status === 200,
    'Prometheus'
  ).catch((error: Error) => {
    throw new Error(`${error.message}: ${said}`)
  })
  const api = async <T>(path: string) => (await ask({ port }, `/api/v1/${path}`)).json()['data'] as T
  return {
    values: async (query: string) =>
      (await api<{ result: unknown[] }>(`query?query=${encodeURIComponent(query)}`)).result,
    alerts: async () => (await api<{ alerts: Alert[] }>('alerts')).alerts,
    rules: async () =>
      (await api<{ groups: { rules: Rule[] }[] }>('rules')).groups.flatMap(({ rules }) => rules)
  }
}

function freePort(): Promise<number> {
  return new Promise(resolve => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })
}
