import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parse as parseDuration } from '@lukeed/ms'
import t, { type Test } from 'tap'
import { parseAllDocuments } from 'yaml'
import { readSettings, Settings } from '../../src/config.ts'
import { ask, build } from '../support/app.ts'
import { SECRET } from '../support/tokens.ts'
import { AWAY, isInstalled, startReverseProxy } from './proxies.ts'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const DEPLOY = join(ROOT, 'deploy')

const { PORT } = readSettings({})

/** What a stop takes besides DRAIN, in seconds: docs/operations.md. */
const STOP_S = 6

/** What compose.yaml mounts that is not here: the user's certificates. */
const NOT_OURS = ['./certs']

const YAML = readdirSync(DEPLOY, { recursive: true, encoding: 'utf8' }).filter(
  name => /\.ya?ml$/.test(name) && !name.includes('templates')
)

t.test('each YAML is YAML', async t => {
  t.ok(YAML.length > 5)
  for (const name of YAML) t.ok(yaml(name).length > 0, name)
})

t.test('compose.yaml', async t => {
  const [compose] = yaml('compose.yaml') as [Compose]
  const { services } = compose
  const ringsides = Object.entries(services).filter(([name]) => name.startsWith('ringside'))
  t.equal(ringsides.length, 2)
  const [nginx] = Object.values(services.nginx!.networks as Networks)
  const example = settingsOf('ringside.env.example')
  for (const [, { environment, stop_grace_period: grace }] of ringsides) {
    const settings = isTaken(t, { ...example, ...environment })
    t.equal(settings.TRUST_PROXY, nginx!.ipv4_address)
    t.ok(parseDuration(grace!)! > settings.DRAIN + STOP_S * 1000, 'it is given the time to drain')
  }
  t.match(environmentOf(services).REDIS_URL, /^redis:\/\/redis:/)

  t.test('all that is mounted is there', async t => {
    for (const { volumes = [], env_file: env } of Object.values(services)) {
      for (const source of volumes.map(text => text.split(':')[0]!)) {
        if (!source.startsWith('.')) t.ok(source in compose.volumes, source)
        else if (!NOT_OURS.includes(source)) t.ok(existsSync(join(DEPLOY, source)), source)
      }
      if (env !== undefined) t.ok(existsSync(join(DEPLOY, `${env}.example`)), env)
    }
  })

  t.test('each instance is proxied and scraped', async t => {
    const names = ringsides.map(([name]) => `${name}:${PORT}`)
    const upstreams = [...text('nginx.conf').matchAll(/^ +server (\S+:\d+) /gm)].map(([, name]) => name)
    t.strictSame(upstreams, names)
    const [{ scrape_configs: scrapes, rule_files: rules }] = yaml('prometheus.yml') as [Prometheus]
    t.strictSame(
      scrapes.flatMap(({ static_configs: each }) => each.flatMap(({ targets }) => targets)),
      names
    )
    const mounted = services.prometheus!.volumes!.map(each => each.split(':')[1])
    for (const file of rules) t.ok(mounted.includes(`/etc/prometheus/${file}`), file)
  })
})

t.test('kubernetes.yaml', async t => areGood(t, yaml('kubernetes.yaml') as Manifest[]))

t.test('the values of the chart are settings', async t => {
  const [{ settings, terminationGracePeriodSeconds: grace }] = yaml('helm/ringside/values.yaml') as [
    { settings: Record<string, string>; terminationGracePeriodSeconds: number }
  ]
  const { DRAIN } = isTaken(t, settings)
  t.ok(grace * 1000 > DRAIN + STOP_S * 1000)
})

t.test('the chart', async t => {
  if (spawnSync('helm', ['version']).status !== 0) return t.plan(0, 'helm is not installed')
  const chart = join(DEPLOY, 'helm/ringside')
  execFileSync('helm', ['lint', '--strict', chart])
  const sets = ['ingress.enabled=true', 'ingress.host=live.example', 'autoscaling.enabled=true']
  const all = execFileSync('helm', [
    'template',
    '--kube-version',
    '1.30.0',
    'live',
    chart,
    ...sets.flatMap(set => ['--set', set])
  ])
  await areGood(t, documents(all.toString(), 'the chart') as Manifest[])
})

t.test('away.conf', async t => {
  const [, , away] = yaml('ingress-nginx.yaml') as [unknown, unknown, { data: Record<string, string> }]
  t.equal(away.data['away.conf']!.trim(), text('away.conf').trim(), 'it is the same in ingress-nginx.yaml')
  if (!isInstalled(AWAY)) return t.comment('nginx is not installed')
  const { clear } = await startReverseProxy(t, AWAY, [])
  const headers = { accept: 'text/event-stream', origin: 'https://app.example' }
  const stream = await ask(clear, '/events?topic=a', { headers })
  t.match(stream, { status: 200, text: 'retry: 3000\n\n' })
  t.match(stream.headers, {
    'content-type': 'text/event-stream',
    'access-control-allow-origin': headers.origin,
    'access-control-allow-credentials': 'true'
  })
  t.match(await ask(clear, '/metrics'), { status: 503, headers: { 'retry-after': '3' } })
  t.equal((await ask(clear, '/healthz')).status, 200)
})

t.test('ringside.service', async t => {
  const unit = text('ringside.service')
  const value = (name: string) => new RegExp(`^${name}=(.+)$`, 'm').exec(unit)![1]!
  const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    scripts: { start: string }
  }
  t.equal(value('ExecStart').replace(/\S+(?=dist\/)/, ''), `/usr/bin/${scripts.start}`)
  const { DRAIN } = isTaken(t, settingsOf('ringside.env.example'))
  // with WORKERS it takes two seconds more
  t.ok(Number(value('TimeoutStopSec')) * 1000 > DRAIN + (STOP_S + 2) * 1000)

  if (spawnSync('systemd-analyze', ['--version']).status !== 0)
    return t.comment('systemd-analyze is not installed')
  const folder = mkdtempSync(join(tmpdir(), 'ringside-unit-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'ringside.service')
  writeFileSync(path, unit.replace('/usr/bin/node', process.execPath))
  const verify = spawnSync('systemd-analyze', ['verify', path], { encoding: 'utf8' })
  t.strictSame([verify.status, verify.stderr], [0, ''])
  // of 100: the less it may do, the fewer
  const security = ['security', '--offline=true', '--threshold=15', path]
  t.equal(spawnSync('systemd-analyze', security).status, 0)
})

/** Whether manifests, ours or those of the chart, are about Ringside as it is. */
async function areGood(t: Test, manifests: readonly Manifest[]): Promise<void> {
  const of = (kind: string) => manifests.find(each => each.kind === kind)!
  const { spec: pod, metadata } = of('Deployment').spec!.template!
  const [container] = pod.containers as [Container]
  const settings = isTaken(t, { ...of('ConfigMap').data, ...of('Secret').stringData, JWT_SECRET: SECRET })
  t.equal(container.ports[0].containerPort, PORT)
  t.ok(pod.terminationGracePeriodSeconds * 1000 > settings.DRAIN + STOP_S * 1000)
  const server = await build(t)
  const { startupProbe, livenessProbe, readinessProbe } = container
  const paths = [startupProbe, livenessProbe, readinessProbe].map(probe => probe.httpGet.path)
  t.strictSame(paths, ['/livez', '/livez', '/readyz'])
  for (const path of [...paths, metadata.annotations['prometheus.io/path']!])
    t.equal((await ask(server, path)).status, 200, path)
  t.equal(metadata.annotations['prometheus.io/port'], String(container.ports[0].containerPort))
  const [metric] = of('HorizontalPodAutoscaler').spec!.metrics!
  t.match((await ask(server, '/metrics')).text, `# TYPE ${metric!.pods!.metric.name} gauge\n`)
  for (const kind of ['Deployment', 'PodDisruptionBudget'])
    t.match(metadata.labels, of(kind).spec!.selector!.matchLabels!, kind)
  t.match(metadata.labels, of('NetworkPolicy').spec!.podSelector!.matchLabels!)
}

/** Whether each of them is a setting, with a value that is allowed: as the server reads them at its start. */
function isTaken(t: Test, env: Readonly<Record<string, string>>) {
  for (const name of Object.keys(env)) t.ok(name in Settings.properties, `${name} is a setting`)
  return readSettings(env)
}

function text(name: string): string {
  return readFileSync(join(DEPLOY, name), 'utf8')
}

function yaml(name: string): unknown[] {
  return documents(text(name), name)
}

/** Throws where it is no YAML. */
function documents(text: string, name: string): unknown[] {
  return parseAllDocuments(text, { merge: true }).map(document => {
    const [error] = [...document.errors, ...document.warnings]
    if (error) throw new Error(`${name}: ${error.message}`)
    return document.toJS() as unknown
  })
}

function settingsOf(name: string): Record<string, string> {
  return Object.fromEntries(
    [...text(name).matchAll(/^([A-Z_]+)=(.*)$/gm)].map(([, key, value]): [string, string] => [key!, value!])
  )
}

function environmentOf(services: Compose['services']): Record<string, string> {
  return services['ringside-1']!.environment!
}

type Networks = Record<string, { ipv4_address?: string }>

interface Compose {
  services: Record<
    string,
    {
      environment?: Record<string, string>
      env_file?: string
      stop_grace_period?: string
      volumes?: string[]
      networks: unknown
    }
  >
  volumes: Record<string, unknown>
}

interface Prometheus {
  scrape_configs: { static_configs: { targets: string[] }[] }[]
  rule_files: string[]
}

interface Probe {
  httpGet: { path: string }
}

interface Container {
  ports: [{ containerPort: number }]
  startupProbe: Probe
  livenessProbe: Probe
  readinessProbe: Probe
}

interface Manifest {
  kind: string
  data?: Record<string, string>
  stringData?: Record<string, string>
  spec?: {
    selector?: { matchLabels?: Record<string, string> }
    podSelector?: { matchLabels?: Record<string, string> }
    metrics?: { pods?: { metric: { name: string } } }[]
    template?: {
      metadata: { labels: Record<string, string>; annotations: Record<string, string> }
      spec: { terminationGracePeriodSeconds: number; containers: Container[] }
    }
  }
}
