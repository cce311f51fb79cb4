import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readFileSync, renameSync, symlinkSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

// npm runs several times
t.setTimeout(400_000)

const ROOT = fileURLToPath(new URL('..', import.meta.url))

function run(command: string, args: readonly string[], cwd = ROOT): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8', maxBuffer: 1e8 })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr}`)
  return stdout
}

/** The package, unpacked in a folder. */
function unpacked(folder: string): { readonly at: string; readonly files: readonly string[] } {
  // what it is made of was built by whoever runs the tests
  const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', folder]
  const [packed] = JSON.parse(run('npm', args)) as [{ filename: string; files: { path: string }[] }]
  run('tar', ['-xzf', packed.filename], folder)
  return { at: join(folder, 'package'), files: packed.files.map(({ path }) => path) }
}

const folder = t.testdir()
const { at, files } = unpacked(folder)
const manifest = JSON.parse(readFileSync(join(at, 'package.json'), 'utf8')) as Record<string, unknown>

t.test('it has what is needed, and nothing that was left over', async t => {
  const kinds = [...new Set(files.map(file => file.split('/')[0]))].sort()
  t.strictSame(kinds, [
    ...['CHANGELOG.md', 'CONTRIBUTING.md', 'LICENSE', 'README.md', 'SECURITY.md', 'data', 'deploy'],
    ...['dist', 'docs', 'examples', 'package.json']
  ])
  t.strictSame(
    files.filter(file => /(^|\/)\.|\.tgz$|node_modules|\.test\./.test(file)),
    ['deploy/helm/ringside/.helmignore']
  )
  t.strictSame(files.filter(file => file.endsWith('.csv')).sort(), ['data/sp500-2000.csv', 'data/stocks.csv'])
  for (const file of files.filter(file => file.endsWith('.map'))) {
    const map = JSON.parse(readFileSync(join(at, file), 'utf8')) as {
      sources: string[]
      sourcesContent?: string[]
    }
    t.equal(map.sourcesContent?.length, map.sources.length, `${file} has its sources`)
  }
  for (const file of files.filter(file => file.endsWith('.js'))) {
    const [, map] = /\n\/\/# sourceMappingURL=(\S+)\s*$/.exec(readFileSync(join(at, file), 'utf8')) ?? []
    if (map) t.ok(files.includes(join(dirname(file), map)), `${file} has its map`)
  }
})

t.test('every link of the README leads somewhere in it', async t => {
  for (const page of ['README.md', 'docs/cli.md']) {
    for (const [, link] of readFileSync(join(at, page), 'utf8').matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)) {
      t.ok(files.includes(normalize(join(dirname(page), link!))), `${page}: ${link}`)
    }
  }
})

t.test('it is published for all, with where it was built', async t => {
  t.match(manifest, { publishConfig: { access: 'public', provenance: true } })
  t.notMatch(readFileSync(join(ROOT, 'package-lock.json'), 'utf8'), /"resolved"/)
})

t.test('npx runs it in an empty folder, with its own dependencies alone', async t => {
  const home = join(folder, 'home')
  const own = join(home, 'node_modules/ringside-hub')
  mkdirSync(dirname(own), { recursive: true })
  renameSync(at, own)
  for (const name of Object.keys(manifest['dependencies'] as object)) {
    const link = join(own, 'node_modules', name)
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(join(ROOT, 'node_modules', name), link)
  }
  // as npm installs a command
  const { version, bin } = manifest as { version: string; bin: { ringside: string } }
  mkdirSync(join(home, 'node_modules/.bin'))
  symlinkSync(join(own, bin.ringside), join(home, 'node_modules/.bin/ringside'))
  chmodSync(join(own, bin.ringside), 0o755)
  t.equal(run('npx', ['--offline', 'ringside-hub', '--version'], home), `${version}\n`)
  t.match(run('npx', ['--offline', 'ringside-hub', 'help', 'sub'], home), /Examples:/)
  // the live page, its prices, the client and the API's page are files of it
  const script = `
import { createServer, readSettings } from 'ringside-hub'
import { version } from 'ringside-hub/client'
const app = await createServer(readSettings({ LOG_LEVEL: 'silent' }))
const statuses = []
for (const path of ['/', '/client.js', '/openapi.json', '/readyz', '/examples/job/run.js']) statuses.push((await app.inject(path)).statusCode)
await app.close()
console.log(JSON.stringify({ version, statuses }))`
  t.strictSame(JSON.parse(run(process.execPath, ['--input-type=module', '-e', script], home)), {
    ...{ version, statuses: [200, 200, 200, 200, 200] }
  })
})
