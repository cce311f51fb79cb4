import Fastify, { type FastifyInstance } from 'fastify'

/** Gives an app compilers of schemas of its own: what the app around it has set for its own schemas is not for ours. */
export async function useOwnCompilers(app: FastifyInstance): Promise<void> {
  app.setValidatorCompiler(await ownValidatorCompiler())
  app.setSerializerCompiler(() => data => JSON.stringify(data))
  app.setSchemaErrorFormatter(
    (errors, part) =>
      new Error(errors.map(({ instancePath, message }) => `${part}${instancePath} ${message}`).join(', '))
  )
}

/** Fastify's own, whatever the app around has set: a query's `topic=a` is also a list of one. */
async function ownValidatorCompiler() {
  const app = Fastify({ ajv: { customOptions: { coerceTypes: 'array', removeAdditional: false } } })
  // it is made for the first route that has a schema
  app.get('/', { schema: { querystring: {} } }, async () => '')
  await app.ready()
  const compiler = app.validatorCompiler!
  await app.close()
  return compiler
}
