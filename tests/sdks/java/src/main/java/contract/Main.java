package contract;

import dev.restate.sdk.endpoint.Endpoint;
import dev.restate.sdk.http.vertx.RestateHttpServer;

/** All services in one program, on the port that PORT names. */
public class Main {
  public static void main(String[] args) {
    Endpoint endpoint =
        Endpoint.bind(new Basics())
            .bind(new Runs())
            .bind(new Counter())
            .bind(new LazyCounter(), service -> service.enableLazyState(true))
            .bind(new Calls())
            .bind(new Mailbox())
            .bind(new Waits())
            .bind(new Combine())
            .bind(new Flow())
            .build();
    RestateHttpServer.fromEndpoint(endpoint)
        .listen(Integer.parseInt(System.getenv("PORT")), "127.0.0.1");
  }
}
