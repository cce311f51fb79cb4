import { spawnSync } from 'node:child_process'
import {
  appendFileSync,
  cpSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

function build(folder: string): number | null {
  return spawnSync(process.execPath, ['build.js'], { cwd: folder, stdio: 'inherit' }).status
}

t.test('what was built is built again when something has changed, and only then', async t => {
  const folder = t.testdir({
    // says how often it was called, and leaves what was made of a file that is gone, as the compiler does
    'compile.cjs': `
const { appendFileSync, cpSync, existsSync } = require('node:fs')
appendFileSync('calls', existsSync('dist') ? '+' : '*')
if (existsSync('src/wrong.ts')) process.exit(1)
cpSync('src', 'dist', { recursive: true })`,
    'package.json': '{"type":"module","scripts":{"compile":"node compile.cjs"}}',
    'tsconfig.json': '{}',
    src: { 'a.ts': 'a', inner: { 'b.ts': 'b' } }
  })
  const file = (name: string) => join(folder, name)
  cpSync(join(ROOT, 'build.js'), file('build.js'))
  const calls = () => readFileSync(file('calls'), 'utf8')
  const builds = (what: string, change: () => void, call: string) => {
    const before = calls()
    change()
    t.equal(build(folder), 0, what)
    t.equal(calls().slice(before.length), call, what)
    t.equal(build(folder), 0)
    t.equal(calls().slice(before.length), call, `${what}, once`)
  }
  writeFileSync(file('calls'), '')
  builds('nothing is built yet', () => {}, '*')
  builds('a file is touched', () => utimesSync(file('src/a.ts'), new Date(), new Date()), '')
  builds('a file has changed', () => appendFileSync(file('src/inner/b.ts'), '!'), '+')
  const later = new Date(Date.now() + 3_600_000)
  builds(
    'a file has changed, and looks older than what was built',
    () => {
      writeFileSync(file('src/a.ts'), 'A')
      utimesSync(file('src/a.ts'), new Date(0), new Date(0))
      utimesSync(file('dist/a.ts'), later, later)
    },
    '+'
  )
  builds('a file is new', () => writeFileSync(file('src/c.ts'), 'c'), '*')
  builds('a file is gone', () => rmSync(file('src/inner/b.ts')), '*')
  t.throws(() => statSync(file('dist/inner/b.ts')), { code: 'ENOENT' })
  builds('package.json', () => appendFileSync(file('package.json'), '\n'), '+')
  builds('tsconfig.json', () => appendFileSync(file('tsconfig.json'), '\n'), '+')
  builds('a config is new', () => writeFileSync(file('rollup.config.js'), ''), '*')
  builds('what was built is damaged', () => writeFileSync(file('dist/a.ts'), ''), '*')
  builds('what was built is gone', () => rmSync(file('dist'), { recursive: true }), '*')
  builds('something was left in it', () => mkdirSync(file('dist/empty')), '')

  writeFileSync(file('src/wrong.ts'), '')
  const before = calls().length
  t.equal(build(folder), 1, 'it fails')
  t.equal(build(folder), 1, 'and fails again')
  t.equal(calls().length, before + 2)
  builds('it is mended', () => rmSync(file('src/wrong.ts')), '*')
})

t.test('npm start builds before it starts, and the project is built as it is', async t => {
  const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>
  }
  t.equal(scripts['prestart'], 'node build.js')
  t.equal(scripts['build'], 'node build.js')
  const stamp = join(ROOT, 'dist/.build.json')
  const { mtimeMs } = statSync(stamp)
  t.equal(build(ROOT), 0)
  t.equal(statSync(stamp).mtimeMs, mtimeMs, 'as the tests have built it')
})
