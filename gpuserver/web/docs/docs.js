// Swagger UI on this server's own document. validatorUrl: null, or it would send the document to another host.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  tagsSorter: "none",
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
