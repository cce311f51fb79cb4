// Makes the page's script, when it is asked for first. In a project of your own a bundler such as Vite does this.
import { fileURLToPath, URL } from 'node:url'

const ENTRY = fileURLToPath(new URL('page.jsx', import.meta.url))

/** Makes JavaScript of JSX. */
async function jsx() {
  const { default: ts } = await import('typescript')
  const compilerOptions = {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext,
    jsx: ts.JsxEmit.ReactJSX
  }
  return {
    name: 'jsx',
    transform(code, id) {
      if (!id.endsWith('.jsx')) return null
      return { code: ts.transpileModule(code, { compilerOptions }).outputText, map: null }
    }
  }
}

/** GET /react/page.js */
export async function scripts(app) {
  let script
  app.get('/react/page.js', async (_request, reply) => {
    script ??= bundle()
    return reply.type('text/javascript').send(await script)
  })
}

/** The other examples need none of these tools. */
async function bundle() {
  const { rollup } = await import('@rollup/wasm-node')
  const { default: commonjs } = await import('@rollup/plugin-commonjs')
  const { nodeResolve } = await import('@rollup/plugin-node-resolve')
  const build = await rollup({
    input: ENTRY,
    plugins: [await jsx(), nodeResolve({ browser: true }), commonjs()],
    // the server has it already
    external: ['/login/session.js']
  })
  const { output } = await build.generate({
    format: 'es',
    // packages ask it whether they are in production
    banner: 'const process = { env: { NODE_ENV: "production" } }'
  })
  await build.close()
  return output[0].code
}
