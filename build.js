// Makes dist/ anew when it isn't what its sources say: npm run build
import { createHash } from 'node:crypto'
import { spawnSync } from 'node:child_process'
import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { delimiter, join, resolve } from 'node:path'
import process from 'node:process'

/** What dist/ is made of, and by what: all that `npm run compile` reads. */
const INPUTS = [
  ...['build.js', 'examples', 'package-lock.json', 'package.json', 'public', 'rollup.config.js'],
  ...['src', 'tsconfig.build.json', 'tsconfig.json']
]

const OUTPUT = 'dist'

/** What was built last, and of what. It is there only while that is true. */
const STAMP = join(OUTPUT, '.build.json')

/** Not compared: who writes them looks after them. */
const OWN = new Set([STAMP, join(OUTPUT, '.tsbuildinfo')])

/** The files in a file or folder that may not be there, in order. */
function filesIn(path) {
  try {
    return readdirSync(path)
      .sort()
      .flatMap(name => filesIn(join(path, name)))
  } catch (error) {
    if (error.code === 'ENOTDIR') return [path]
    if (error.code === 'ENOENT') return []
    throw error
  }
}

/** The content of some files, by names and contents and not by times, which a checkout or a copy sets anew. */
function stateOf(paths) {
  const files = paths.flatMap(filesIn).filter(file => !OWN.has(file))
  const hash = createHash('sha256')
  for (const file of files)
    hash.update(`${file}\0`).update(createHash('sha256').update(readFileSync(file)).digest())
  return { files, hash: hash.digest('hex') }
}

function readStamp() {
  try {
    return JSON.parse(readFileSync(STAMP, 'utf8'))
  } catch {
    return undefined
  }
}

/** `npm run compile`, without waiting for npm. Answers its exit status. */
function compile() {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8'))
  const PATH = `${resolve('node_modules/.bin')}${delimiter}${process.env.PATH}`
  return spawnSync(scripts.compile, { shell: true, stdio: 'inherit', env: { ...process.env, PATH } }).status
}

// before it is compiled: what changes meanwhile is seen the next time
const inputs = stateOf(INPUTS)
const stamp = readStamp()
const isIntact = stamp !== undefined && stamp.outputs === stateOf([OUTPUT]).hash

if (!isIntact || stamp.inputs !== inputs.hash) {
  // the compiler leaves what it has made of a file that is gone, and believes what it has made to be there
  const keeps = isIntact && stamp.files === inputs.files.join()
  rmSync(keeps ? STAMP : OUTPUT, { recursive: true, force: true })
  const status = compile()
  if (status === 0) {
    const built = { inputs: inputs.hash, files: inputs.files.join(), outputs: stateOf([OUTPUT]).hash }
    writeFileSync(STAMP, JSON.stringify(built))
  } else process.exitCode = status ?? 1
}
