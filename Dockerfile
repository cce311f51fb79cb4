# What is compiled, with what compiles it
FROM node:24-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY build.js tsconfig.json tsconfig.build.json rollup.config.js ./
COPY src ./src
COPY public ./public
COPY examples ./examples
RUN npm run build

# What runs needs: the production dependencies alone
FROM node:24-bookworm-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --ignore-scripts

FROM node:24-bookworm-slim
WORKDIR /app
COPY --from=dependencies /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
COPY package.json ./
COPY docs ./docs
COPY data ./data

# Loopback would be the container's own. Without a key the server refuses this address: docs/operations.md
ENV NODE_ENV=production HOST=0.0.0.0 PORT=3000
EXPOSE 3000
USER node
STOPSIGNAL SIGTERM

# Whatever certificate it has is not made out to 127.0.0.1
HEALTHCHECK --interval=10s --timeout=3s --retries=3 \
  CMD ["node", "--no-warnings", "-e", "process.env.NODE_TLS_REJECT_UNAUTHORIZED = 0; fetch(`http${process.env.TLS_CERT ? 's' : ''}://127.0.0.1:${process.env.PORT}/readyz`).then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]

CMD ["node", "--min-semi-space-size=4", "--max-semi-space-size=16", "dist/cli/ringside.js", "serve"]
