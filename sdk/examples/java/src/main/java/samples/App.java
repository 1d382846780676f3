package samples;

import dev.restate.sdk.endpoint.Endpoint;
import dev.restate.sdk.http.vertx.RestateHttpServer;

/**
 * Three samples in one program: a greeter that counts, an update that never repeats a done part,
 * and a payment.
 *
 * <p>mvn -q compile exec:java
 */
public class App {
  public static void main(String[] args) {
    int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "9080"));
    RestateHttpServer.fromEndpoint(
            Endpoint.bind(new Greeter()).bind(new ProfileUpdater()).bind(new Payment()))
        .listen(port, "127.0.0.1"); // whoever reaches it could call handlers past the server
  }
}
